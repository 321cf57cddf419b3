"""Pods as they should be: the hardening every pod of ours has, and what Kubernetes demands of one under `restricted`.

`restricted` is the Pod Security Standards' strictest level, as Kubernetes 1.37 checks it, in our own words: a namespace
that warns only lets a wrong Job in and then its pods do not start, so a wrong pod must be found before it is sent.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from headrace.loop.dispatch.base import Resources

Pod = Mapping[str, Any]
"""A PodSpec as JSON."""

USER = 10001
"""The user of our image."""
BY_DIGEST = re.compile(r"[^@\s]+@sha256:[0-9a-f]{64}")
GPU = "nvidia.com/gpu"

VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "image", "persistentVolumeClaim", "projected",
           "secret"}
SYSCTLS = {"kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.tcp_syncookies",
           "net.ipv4.ping_group_range", "net.ipv4.ip_unprivileged_port_start", "net.ipv4.ip_local_reserved_ports",
           "net.ipv4.tcp_keepalive_time", "net.ipv4.tcp_fin_timeout", "net.ipv4.tcp_keepalive_intvl",
           "net.ipv4.tcp_keepalive_probes", "net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem",
           "net.ipv4.tcp_slow_start_after_idle", "net.ipv4.tcp_notsent_lowat"}
SELINUX_TYPES = {"", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"}
PROFILES = {"RuntimeDefault", "Localhost"}
APPARMOR_ANNOTATION = "container.apparmor.security.beta.kubernetes.io/"


# ── our own ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def pod_security(user: int = USER) -> dict[str, Any]:
    """The pod's securityContext: no root, the runtime's own seccomp profile."""
    return {"runAsNonRoot": True, "runAsUser": user, "runAsGroup": user, "fsGroup": user,
            "seccompProfile": {"type": "RuntimeDefault"}}


def container_security() -> dict[str, Any]:
    """A container's securityContext: nothing to gain, nothing to write outside its volumes."""
    return {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}


def limits(resources: Resources) -> dict[str, Any]:
    """A container's `resources`: what is asked for is also all there is, so that a run disturbs no neighbour."""
    asked: dict[str, str] = {}
    if resources.cpu is not None:
        asked["cpu"] = f"{round(resources.cpu * 1000)}m"
    if resources.memory_mb is not None:
        asked["memory"] = f"{resources.memory_mb}Mi"
    if resources.gpu:
        asked[GPU] = str(resources.gpu)
    return {"requests": dict(asked), "limits": asked} if asked else {}


def by_digest(image: str) -> bool:
    """Does the image's name say exactly which image it is?"""
    return BY_DIGEST.fullmatch(image) is not None


# ── Pod Security Standards ───────────────────────────────────────────────────────────────────────────────────────────


def restricted(pod: Pod, annotations: Mapping[str, str] | None = None) -> list[str]:
    """Everything for which Kubernetes would refuse this PodSpec at level `restricted`; nothing if it would take it.

    `annotations` are the pod's. A field that is absent and one that is null are the same, as they are to the API.
    """
    found = [problem for rule in RULES for problem in rule(pod)]
    for name, value in sorted((annotations or {}).items()):
        if name.startswith(APPARMOR_ANNOTATION) and not (value in ("", "runtime/default")
                                                         or value.startswith("localhost/")):
            found.append(f"the annotation {name} must be runtime/default or localhost/…, not {value}")
    return found


def containers(pod: Pod) -> Iterator[tuple[str, Pod]]:
    """All of them: (how a message calls it, the container)."""
    for kind in ("initContainers", "containers", "ephemeralContainers"):
        for container in pod.get(kind) or ():
            yield f"container “{container.get('name', '?')}”", container


def _get(node: Any, *path: str) -> Any:
    for name in path:
        node = (node or {}).get(name)
    return node


def _contexts(pod: Pod) -> Iterator[tuple[str, Pod]]:
    """Every securityContext that is set: the pod's, then the containers'."""
    for who, holder in (("the pod", pod), *containers(pod)):
        if holder.get("securityContext") is not None:
            yield who, holder["securityContext"]


def _windows(pod: Pod) -> bool:
    return bool(_get(pod, "os", "name") == "windows")


def _own_users(pod: Pod) -> bool:
    """In a user namespace of its own, root is nobody outside."""
    return pod.get("hostUsers") is False


def _host_namespaces(pod: Pod) -> Iterator[str]:
    yield from (f"{field} must not be true" for field in ("hostNetwork", "hostPID", "hostIPC") if pod.get(field))


def _privileged(pod: Pod) -> Iterator[str]:
    for who, container in containers(pod):
        if _get(container, "securityContext", "privileged"):
            yield f"{who} must not be privileged"


def _escalation(pod: Pod) -> Iterator[str]:
    if _windows(pod):
        return
    for who, container in containers(pod):
        if _get(container, "securityContext", "allowPrivilegeEscalation") is not False:
            yield f"{who} must set securityContext.allowPrivilegeEscalation: false"


def _capabilities(pod: Pod) -> Iterator[str]:
    if _windows(pod):
        return
    for who, container in containers(pod):
        written = _get(container, "securityContext", "capabilities") or {}
        if "ALL" not in (written.get("drop") or ()):
            yield f"{who} must drop all capabilities: securityContext.capabilities.drop: [ALL]"
        if more := sorted(set(written.get("add") or ()) - {"NET_BIND_SERVICE"}):
            yield f"{who} must not add the capabilities {', '.join(more)}"


def _non_root(pod: Pod) -> Iterator[str]:
    if _own_users(pod):
        return
    if _get(pod, "securityContext", "runAsNonRoot") is False:
        yield "the pod must not set securityContext.runAsNonRoot: false"
    for who, container in containers(pod):
        own = _get(container, "securityContext", "runAsNonRoot")
        if not (_get(pod, "securityContext", "runAsNonRoot") if own is None else own):
            yield f"{who}, or the pod, must set securityContext.runAsNonRoot: true"


def _user(pod: Pod) -> Iterator[str]:
    if not _own_users(pod):
        yield from (f"{who} must not set runAsUser: 0" for who, context in _contexts(pod)
                    if context.get("runAsUser") == 0)


def _seccomp(pod: Pod) -> Iterator[str]:
    if _windows(pod):
        return
    for who, context in _contexts(pod):
        if (profile := context.get("seccompProfile")) is not None and profile.get("type") not in PROFILES:
            yield f"{who} must not set seccompProfile.type to {profile.get('type')}"
    if _get(pod, "securityContext", "seccompProfile", "type") in PROFILES:
        return
    for who, container in containers(pod):
        if _get(container, "securityContext", "seccompProfile") is None:
            yield f"{who}, or the pod, must set seccompProfile.type to RuntimeDefault or Localhost"


def _apparmor(pod: Pod) -> Iterator[str]:
    for who, context in _contexts(pod):
        if (profile := context.get("appArmorProfile")) is not None and profile.get("type") not in PROFILES:
            yield f"{who} must not set appArmorProfile.type to {profile.get('type')}"


def _selinux(pod: Pod) -> Iterator[str]:
    for who, context in _contexts(pod):
        options = context.get("seLinuxOptions") or {}
        if (options.get("type") or "") not in SELINUX_TYPES:
            yield f"{who} must not set seLinuxOptions.type to {options['type']}"
        yield from (f"{who} must not set seLinuxOptions.{field}" for field in ("user", "role") if options.get(field))


def _proc_mount(pod: Pod) -> Iterator[str]:
    for who, container in containers(pod):
        if (_get(container, "securityContext", "procMount") or "Default") != "Default":
            yield f"{who} must not set securityContext.procMount"


def _host_process(pod: Pod) -> Iterator[str]:
    yield from (f"{who} must not set windowsOptions.hostProcess" for who, context in _contexts(pod)
                if _get(context, "windowsOptions", "hostProcess"))


def _sysctls(pod: Pod) -> Iterator[str]:
    for sysctl in _get(pod, "securityContext", "sysctls") or ():
        if sysctl.get("name") not in SYSCTLS:
            yield f"the pod must not set the sysctl {sysctl.get('name')}"


def _host_ports(pod: Pod) -> Iterator[str]:
    for who, container in containers(pod):
        yield from (f"{who} must not take port {port['hostPort']} of its host"
                    for port in container.get("ports") or () if port.get("hostPort"))


def _volumes(pod: Pod) -> Iterator[str]:
    for volume in pod.get("volumes") or ():
        kinds = {key for key, value in volume.items() if key != "name" and value is not None}
        if kinds and not kinds & VOLUMES:  # one without a source becomes an emptyDir
            yield f"volume “{volume.get('name')}” must not be {', '.join(sorted(kinds))}"


def _hosts(pod: Pod) -> Iterator[str]:
    """A probe or a hook that names a host makes the kubelet call it, from the node."""
    handlers = [("livenessProbe",), ("readinessProbe",), ("startupProbe",), ("lifecycle", "postStart"),
                ("lifecycle", "preStop")]
    for who, container in containers(pod):
        for path in handlers:
            if any(_get(container, *path, way, "host") for way in ("httpGet", "tcpSocket")):
                yield f"{who} must not name a host in {'.'.join(path)}"


RULES: tuple[Callable[[Pod], Iterator[str]], ...] = (
    _host_namespaces, _privileged, _escalation, _capabilities, _non_root, _user, _seccomp, _apparmor, _selinux,
    _proc_mount, _host_process, _sysctls, _host_ports, _volumes, _hosts)
"""One a control of the standard."""
