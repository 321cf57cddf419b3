"""What makes a stack a secure one: keys, users and what each may do. All made here, kept where only this user reads.

    .headrace/stack/secure/ca.pem        the authority that clients trust; its key is thrown away once it has signed
    .headrace/stack/secure/server.pem    key and certificate of the brokers, who know each other by it, too
    .headrace/stack/secure/worker.json   a user's login: librdkafka's properties, its random password among them

Passwords never stand in a command line, in an environment, in `stack.json` or in a log.
"""

from __future__ import annotations

import datetime
import ipaddress
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from headrace.errors import MissingExtra, StackError
from headrace.stack.javaclient import jaas
from headrace.stack.part import HOST

MECHANISM = "SCRAM-SHA-512"
BROKER, ADMIN, WORKER, READER = USERS = ("broker", "admin", "worker", "reader")
SUPER = (BROKER, ADMIN)
"""May do anything: the brokers among each other, and who looks after the cluster."""
VALID_DAYS = 3650
REQUEST_S = 30.0

OURS = ("headrace", "connect")
"""What names of consumer groups and transactional ids begin with, in headrace and in Kafka Connect."""
Rule = tuple[str, str, str, str]
RULES: Mapping[str, tuple[Rule, ...]] = {
    WORKER: (
        *(("topic", "*", "literal", operation) for operation in ("read", "write", "create", "describe_configs")),
        *(("group", name, "prefixed", operation) for name in OURS for operation in ("read", "delete")),
        *(("transactional_id", name, "prefixed", operation) for name in OURS for operation in ("write", "describe")),
        ("group", "*", "literal", "describe"),
    ),
    READER: (
        *(("topic", "*", "literal", operation) for operation in ("read", "describe_configs")),
        ("group", READER, "prefixed", "read"),
        ("group", "*", "literal", "describe"),
    ),
}
"""User → (kind of resource, its name, how that is meant, operation) which it may; all else is denied. Kafka's own
topics are denied to both by name."""
INTERNAL = "__"


def make(folder: Path) -> None:
    """Keys and logins, once; the folder is there whole or not at all. Raises MissingExtra."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.parent.chmod(0o700)  # topics and their records, too, are nobody else's to read
    if folder.is_dir():
        for user in USERS:  # the project may stand elsewhere now
            _write_login(folder, user, login(folder, user)["sasl.password"], folder)
        return
    new = folder.with_name(f"{folder.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(mode=0o700)
    authority, server = _certificates()
    write_private(new / "ca.pem", authority)
    write_private(new / "server.pem", server)
    for user in USERS:
        _write_login(new, user, secrets.token_urlsafe(32), folder)
    new.rename(folder)


def _write_login(into: Path, user: str, password: str, home: Path) -> None:
    told = {"security.protocol": "sasl_ssl", "ssl.ca.location": str(home.resolve() / "ca.pem"),
            "sasl.mechanism": MECHANISM, "sasl.username": user, "sasl.password": password}
    write_private(into / f"{user}.json.new", json.dumps(told, indent=1) + "\n")
    (into / f"{user}.json.new").replace(into / f"{user}.json")


def login(folder: Path, user: str) -> dict[str, Any]:
    """librdkafka's properties to log in as this user."""
    return dict(json.loads((folder / f"{user}.json").read_text()))


def write_private(path: Path, text: str) -> None:
    """A file that only its owner reads, from its first moment on."""
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as opened:
        opened.write(text)


def _certificates() -> tuple[str, str]:
    """(the authority's certificate, key and certificate of the brokers), in PEM."""
    try:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
    except ImportError as error:
        raise MissingExtra("stack", "making keys for a secure stack") from error

    now = datetime.datetime.now(datetime.UTC)
    authority_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())

    def certificate(name: str, public: Any, *extensions: tuple[Any, bool]) -> Any:
        named = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        building = (x509.CertificateBuilder().subject_name(named).issuer_name(issuer).public_key(public)
                    .serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(days=1))
                    .not_valid_after(now + datetime.timedelta(days=VALID_DAYS)))
        for extension, critical in extensions:
            building = building.add_extension(extension, critical=critical)
        return building.sign(authority_key, hashes.SHA256())

    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "headrace stack")])
    usage = dict.fromkeys(("digital_signature", "content_commitment", "key_encipherment", "data_encipherment",
                           "key_agreement", "key_cert_sign", "crl_sign", "encipher_only", "decipher_only"), False)
    authority = certificate(
        "headrace stack", authority_key.public_key(), (x509.BasicConstraints(ca=True, path_length=0), True),
        (x509.KeyUsage(**{**usage, "key_cert_sign": True, "crl_sign": True}), True),
        (x509.SubjectKeyIdentifier.from_public_key(authority_key.public_key()), False))
    names = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address(HOST))])
    server = certificate(
        BROKER, key.public_key(), (x509.BasicConstraints(ca=False, path_length=None), True), (names, False),
        (x509.KeyUsage(**{**usage, "digital_signature": True}), True),
        (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), False),
        (x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), False))
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return authority.public_bytes(pem).decode(), (private + server.public_bytes(pem)).decode()


def broker_properties(folder: Path) -> dict[str, str]:
    """What a node of a secure stack is told beside its addresses: clients log in by SCRAM over TLS, controllers and
    brokers show each other their certificate."""
    return {
        "listener.security.protocol.map": "CLIENT:SASL_SSL,CONTROLLER:SSL",
        "inter.broker.listener.name": "CLIENT",
        "sasl.enabled.mechanisms": MECHANISM,
        "sasl.mechanism.inter.broker.protocol": MECHANISM,
        f"listener.name.client.{MECHANISM.lower()}.sasl.jaas.config": jaas(login(folder, BROKER)),
        "listener.name.controller.ssl.client.auth": "required",
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(folder / "server.pem"),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(folder / "ca.pem"),
        "ssl.principal.mapping.rules": "RULE:^CN=(.*?)$/$1/",
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "allow.everyone.if.no.acl.found": "false",
        "super.users": ";".join(f"User:{user}" for user in SUPER),
    }


@contextmanager
def format_arguments(folder: Path) -> Iterator[list[str]]:
    """For Kafka's StorageTool: the users, in a file, since what stands in a command line any user of the machine reads.
    """
    file = folder / "users.arguments"
    write_private(file, "".join(
        f"--add-scram\n{MECHANISM}=[name={user},password={login(folder, user)['sasl.password']}]\n" for user in USERS))
    try:
        yield [f"@{file}"]
    finally:
        file.unlink()


def hidden(folder: Path, text: str) -> str:
    """The text without any of the passwords."""
    for user in USERS:
        text = text.replace(login(folder, user)["sasl.password"], "[hidden]")
    return text


def grant(bootstrap: str, folder: Path) -> None:
    """Let the cluster know RULES; what it knows already stays. Raises StackError."""
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import (
        AclBinding,
        AclOperation,
        AclPermissionType,
        AdminClient,
        ResourcePatternType,
        ResourceType,
    )

    def binding(user: str, rule: Rule, permission: AclPermissionType = AclPermissionType.ALLOW) -> Any:
        kind, name, pattern, operation = rule
        return AclBinding(ResourceType[kind.upper()], name, ResourcePatternType[pattern.upper()], f"User:{user}", "*",
                          AclOperation[operation.upper()], permission)

    wanted = [binding(user, rule) for user, rules in RULES.items() for rule in rules]
    wanted += [binding(user, ("topic", INTERNAL, "prefixed", "all"), AclPermissionType.DENY) for user in RULES]
    client = AdminClient({**login(folder, ADMIN), "bootstrap.servers": bootstrap, "log_level": 0})
    try:
        for done in client.create_acls(wanted, request_timeout=REQUEST_S).values():
            done.result(REQUEST_S)
    except (KafkaException, TimeoutError) as error:
        raise StackError(f"Kafka at {bootstrap} does not take its rules of access: {error}",
                         hint="`headrace logs` may say why; `headrace up` tries again") from error
