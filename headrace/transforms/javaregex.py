"""Java's regular expressions, rewritten for `re`, which reads most of them as they are.

They are for names of topics, which are ASCII: classes of characters are worked out over ASCII, and what lies beyond
is one more character, “other”. What cannot be rewritten is refused by name.
"""

from __future__ import annotations

import re
import string
from functools import lru_cache

OTHER = "\u0100"
"""Stands for every character beyond ASCII in a set."""
ASCII = frozenset(map(chr, range(128)))
ALL = ASCII | {OTHER}
PREDEFINED = {
    "d": frozenset(string.digits), "w": frozenset(string.ascii_letters + string.digits + "_"),
    "s": frozenset(" \t\n\x0b\f\r"), "h": frozenset(" \t"), "v": frozenset("\n\x0b\f\r")}
NAMED = {
    "Lower": frozenset(string.ascii_lowercase), "Upper": frozenset(string.ascii_uppercase), "ASCII": ASCII,
    "Alpha": frozenset(string.ascii_letters), "Digit": frozenset(string.digits),
    "Alnum": frozenset(string.ascii_letters + string.digits), "Punct": frozenset(string.punctuation),
    "Graph": frozenset(string.ascii_letters + string.digits + string.punctuation),
    "Print": frozenset(string.ascii_letters + string.digits + string.punctuation + " "), "Blank": frozenset(" \t"),
    "Cntrl": frozenset(map(chr, [*range(32), 127])), "XDigit": frozenset(string.hexdigits),
    "Space": PREDEFINED["s"]}
NAMED |= {
    "L": NAMED["Alpha"], "Lu": NAMED["Upper"], "Ll": NAMED["Lower"], "N": NAMED["Digit"], "Nd": NAMED["Digit"],
    "IsAlphabetic": NAMED["Alpha"], "IsLetter": NAMED["Alpha"], "IsDigit": NAMED["Digit"],
    "IsUppercase": NAMED["Upper"], "IsLowercase": NAMED["Lower"], "javaLowerCase": NAMED["Lower"],
    "javaUpperCase": NAMED["Upper"]}
CONTROLS = {"t": "\t", "n": "\n", "r": "\r", "f": "\f", "a": "\a", "e": "\x1b"}


@lru_cache(maxsize=256)
def compiled(pattern: str) -> re.Pattern[str]:
    """The expression. Raises ValueError, in words, for what Java refuses and for what cannot be rewritten."""
    try:
        return re.compile(_Rewriter(pattern).all(), re.ASCII)
    except re.error as error:
        raise ValueError(f"is no regular expression: {error}") from None


def template(replacement: str, regex: re.Pattern[str]) -> list[str | int]:
    """A replacement as texts and numbers of groups. Raises ValueError for a group that the expression does not have."""
    found: list[str | int] = []
    at = 0
    while at < len(replacement):
        char = replacement[at]
        if char == "\\":
            if at + 1 == len(replacement):
                raise ValueError("ends with a backslash, which must have a character behind it")
            found.append(replacement[at + 1])
            at += 2
        elif char == "$":
            group, at = _group(replacement, at + 1, regex)
            found.append(group)
        else:
            found.append(char)
            at += 1
    return found


def _group(replacement: str, at: int, regex: re.Pattern[str]) -> tuple[int, int]:
    name = re.compile(r"\{([a-zA-Z][a-zA-Z0-9]*)\}").match(replacement, at)
    if name:
        if name[1] not in regex.groupindex:
            raise ValueError(f"the expression has no group “{name[1]}”")
        return regex.groupindex[name[1]], name.end()
    if not replacement[at:at + 1].isdecimal():
        raise ValueError("a $ must have the number of a group behind it, or its name, as in $1 or ${name}; a backslash "
                         "before it makes it a dollar")
    number = int(replacement[at])
    if number > regex.groups:
        raise ValueError(f"the expression has {regex.groups} groups, and no group {number}")
    at += 1
    while replacement[at:at + 1].isdecimal() and 10 * number + int(replacement[at]) <= regex.groups:
        number, at = 10 * number + int(replacement[at]), at + 1
    return number, at


class _Rewriter:
    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        self.at = 0
        self.groups = 0

    def peek(self, n: int = 1) -> str:
        return self.pattern[self.at:self.at + n]

    def take(self, n: int = 1) -> str:
        found = self.pattern[self.at:self.at + n]
        if len(found) < n:
            raise ValueError("ends too early")
        self.at += n
        return found

    def all(self) -> str:
        made = self.run()
        if self.at < len(self.pattern):
            raise ValueError("has a “)” too many")
        return made

    def run(self) -> str:
        """Up to the end of the group, or of all."""
        made: list[str] = []
        while self.at < len(self.pattern) and self.peek() != ")":
            char = self.take()
            if char == "(":
                made.append(self.group())
            elif char == "[":
                made.append(written(*self.set()))
            elif char == "\\":
                made.append(self.escape())
            elif char == "{":
                made.append(self.counted(bool(made)))
            elif char == "$":
                made.append(r"(?=\n?\Z)")
            else:
                made.append(re.escape(char) if char in "]}" else char)
        return "".join(made)

    def counted(self, something: bool) -> str:
        found = re.compile(r"\d+(,\d*)?\}").match(self.pattern, self.at)
        if not found or not something:
            raise ValueError("“{” begins a count such as {2} or {1,3}; a backslash before it makes it a brace")
        self.at = found.end()
        return "{" + found[0]

    def group(self) -> str:
        """From behind the opening bracket to behind the closing one."""
        opened = "("
        if self.peek() == "?":
            self.take()
            flags = re.compile(r"([imsxudU]*)(?:-([imsxudU]+))?([:)])").match(self.pattern, self.at)
            name = re.compile(r"<([a-zA-Z][a-zA-Z0-9]*)>").match(self.pattern, self.at)
            mark = next((each for each in (":", ">", "=", "!", "<=", "<!") if self.pattern.startswith(each, self.at)
                         ), None)
            if mark:
                opened = "(?" + self.take(len(mark))
            elif name:
                self.at = name.end()
                opened = f"(?P<{name[1]}>"
            elif flags:
                self.at = flags.end()
                return self.flagged(flags)
            else:
                raise ValueError(f"“(?{self.peek()}” begins no group that is known")
        made = opened + self.run()
        return made + self.closed()

    def closed(self) -> str:
        if self.peek() != ")":
            raise ValueError("has a “(” that is not closed")
        return self.take()

    def flagged(self, flags: re.Match[str]) -> str:
        """`(?i:…)`, or `(?i)`, which is for the rest of the group."""
        on, off = (set(each or "") - {"d"} for each in (flags[1], flags[2]))
        for each in on | off:
            if each in "uUx":
                raise ValueError(f"the flag “{each}” is not supported here")
        opened = "(?" + "".join(sorted(on)) + ("-" + "".join(sorted(off)) if off else "") + ":"
        if flags[3] == ":":
            return opened + self.run() + self.closed()
        return opened + self.run() + ")"

    def escape(self) -> str:
        char = self.take()
        if char == "Q":
            end = self.pattern.find("\\E", self.at)
            text = self.pattern[self.at:end if end >= 0 else None]
            self.at = end + 2 if end >= 0 else len(self.pattern)
            return "".join(map(re.escape, text))
        if char == "E":
            return ""
        if char in "bBA":
            return "\\" + char
        if char in "zZ":
            return r"\Z" if char == "z" else r"(?=\n?\Z)"
        if char in "123456789":
            return f"(?:\\{char})"
        if char == "k":
            name = re.compile(r"<([a-zA-Z][a-zA-Z0-9]*)>").match(self.pattern, self.at)
            if not name:
                raise ValueError("“\\k” must have the name of a group behind it, as in \\k<name>")
            self.at = name.end()
            return f"(?P={name[1]})"
        if char == "R":
            return r"(?:\r\n|[\n\x0b\f\r])"
        found = self.escaped_set(char)
        return written(*found) if found is not None else re.escape(self.escaped(char))

    def escaped_set(self, char: str) -> tuple[frozenset[str], bool] | None:
        """What \\d, \\W, \\p{…} stand for: (characters, negated)."""
        if char.lower() in PREDEFINED and char.isalpha():
            return PREDEFINED[char.lower()], char.isupper()
        if char not in "pP":
            return None
        found = re.compile(r"\{\^?([\w=]+)\}|(\w)").match(self.pattern, self.at)
        name = (found[1] or found[2]) if found else ""
        name = name.removeprefix("Is") if name.removeprefix("Is") in NAMED else name
        if not found or name not in NAMED:
            raise ValueError(f"the class “\\{char}{found[0] if found else ''}” is not supported here")
        self.at = found.end()
        return NAMED[name], char == "P"

    def escaped(self, char: str) -> str:
        """The one character that an escape stands for."""
        if char in CONTROLS:
            return CONTROLS[char]
        code = {"x": r"([0-9a-fA-F]{2})|\{([0-9a-fA-F]+)\}", "u": r"([0-9a-fA-F]{4})",
                "0": r"([0-3][0-7]{2}|[0-7]{1,2})"}.get(char)
        if code:
            found = re.compile(code).match(self.pattern, self.at)
            if not found:
                raise ValueError(f"“\\{char}” must have the code of a character behind it")
            self.at = found.end()
            return chr(int(next(filter(None, found.groups())), 8 if char == "0" else 16))
        if char == "c":
            return chr(ord(self.take()) ^ 64)
        if char.isascii() and char.isalpha():
            raise ValueError(f"the escape “\\{char}” is not supported here")
        return char

    def set(self) -> tuple[frozenset[str], bool]:
        """A class from behind its opening bracket to behind its closing one: (characters, negated)."""
        negated = self.peek() == "^"
        if negated:
            self.take()
        found, first = frozenset[str](), True
        while True:
            if self.peek(2) == "&&":
                self.take(2)
                found &= self.rest()
                break
            char = self.take()
            if char == "]" and not first:
                break
            first = False
            if char == "[":
                found |= members(*self.set())
            else:
                found |= self.member(char)
        return found, negated

    def rest(self) -> frozenset[str]:
        """What stands behind `&&`, to behind the bracket that closes the class."""
        found = frozenset[str]()
        while (char := self.take()) != "]":
            if char == "&" and self.peek() == "&":
                self.take()
                return found & self.rest()
            found |= members(*self.set()) if char == "[" else self.member(char)
        return found

    def member(self, char: str) -> frozenset[str]:
        """A character, an escape or a range within a class."""
        if char == "\\":
            char = self.take()
            if char == "Q":
                raise ValueError("“\\Q” within brackets is not supported here")
            known = self.escaped_set(char)
            if known is not None:
                return members(*known)
            char = self.escaped(char)
        if self.peek() == "-" and self.peek(2)[1:] not in ("]", "[", ""):
            self.take()
            end = self.take()
            end = self.escaped(self.take()) if end == "\\" else end
            if end < char:
                raise ValueError(f"the range “{char}-{end}” runs backwards")
            return frozenset(each if each in ASCII else OTHER for each in map(chr, range(ord(char), min(
                ord(end), 256) + 1))) or frozenset({OTHER})
        return frozenset({char if char in ASCII else OTHER})


def members(characters: frozenset[str], negated: bool) -> frozenset[str]:
    return ALL - characters if negated else characters


def written(characters: frozenset[str], negated: bool) -> str:
    """A class as `re` has it."""
    if not characters - {OTHER} and OTHER not in characters:
        return r"[\s\S]" if negated else r"(?!)"
    inner = "".join(f"\\x{ord(each):02x}" for each in sorted(characters - {OTHER}))
    if OTHER in characters:
        inner += "\x80-\U0010ffff"
    return f"[{'^' if negated else ''}{inner}]"
