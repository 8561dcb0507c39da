"""What a record of text says: a document, a pair of texts (condition -> target) or a chat, or what is wrong with it.

    plain   "text" bytes in UTF-8, "begins" and "ends" bool: a long document is several records, each a stretch of it
    pairs   "given", "text"
    chats   "messages": a list of (role, bytes) for each

A label is one more column, last and of the name that it has in the source, or FOLDER where it is the folder of a file.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal, NamedTuple

import pyarrow as pa

from ..errors import BadConfig, BadData, near, printable
from ..spaces import Problem
from .documents import DOCUMENTS, stretches
from .reader import Report, problem

__all__ = ["COLUMNS", "FOLDER", "ROLES", "Asked", "Row", "Wanted", "document", "given_columns", "nothing_named",
           "record_text", "wanted_of"]

ROLES = ("system", "user", "assistant")
FOLDER = "folder"  # the label that says which folder a file is in
#: The columns of each kind of record, with their types.
COLUMNS = {"plain": {"text": pa.binary(), "begins": pa.bool_(), "ends": pa.bool_()},
           "pairs": {"given": pa.binary(), "text": pa.binary()},
           "chats": {"messages": pa.list_(pa.struct({"role": pa.string(), "text": pa.binary()}))}}

Row = tuple[str, tuple[Any, ...]]  # where, and the values of the columns


class Asked(NamedTuple):
    """What a person said of a source of text: the columns of a pair (of its condition also several, a comma between two), how
    files are cut into documents, and the column of the label; or one that is read where it is there."""

    condition: str | None = None
    target: str | None = None
    documents: str = "auto"
    label: str | None = None
    beside: str | None = None

    @property
    def named(self) -> str | None:
        """The column of the label, whether or not it has to be there."""
        return self.label or self.beside

    @property
    def tabular(self) -> bool:
        """Whether columns have to be there."""
        return self.target is not None or self.label not in (None, FOLDER)

    def check(self) -> "Asked":
        """Itself. Raises BadConfig SETTING_RANGE."""
        if self.documents not in DOCUMENTS:
            raise BadConfig("SETTING_RANGE", f"'documents' is '{printable(self.documents)}'.", near(self.documents, DOCUMENTS))
        if self.condition is not None and self.target is None:
            raise BadConfig("SETTING_RANGE", f"'condition' is '{printable(self.condition)}' and there is no 'target'.",
                            "Name the column of what is to be written, too.")
        if self.condition is not None and (self.target in (given := given_columns(self.condition)) or not given):
            raise BadConfig("SETTING_RANGE", f"'condition' is '{printable(self.condition)}', and 'target' "
                            f"'{printable(self.target or '')}'.", "Name a column, or several with commas, beside the target.")
        return self


class Wanted(NamedTuple):
    """Which fields of a record are its text: kind "plain", "pairs" or "chats", and the names of its fields; and that of its
    label, if it has one."""

    kind: Literal["plain", "pairs", "chats"]
    fields: tuple[str, ...]
    label: str | None = None

    def rows(self, record: Mapping[str, Any], where: str, report: Report) -> Iterator[Row]:
        """The record, a long document in stretches; nothing where it cannot be used, which is reported."""
        label = () if self.label is None else (record.get(self.label),)
        if label and isinstance(label[0], list | Mapping):
            report(problem("TAB_TYPE", where, f"the label is {printable(label[0], 60)}, not one value.", "Give a class."))
            return
        for place, values in self._rows(record, where, report):
            yield place, (*values, *label)

    def _rows(self, record: Mapping[str, Any], where: str, report: Report) -> Iterator[Row]:
        if self.kind == "chats":
            chat = _chat(record.get(self.fields[0]), where)
            if isinstance(chat, Problem):
                report(chat)
            else:
                yield where, (chat,)
            return
        *given, target = self.fields
        values = {name: record.get(name) for name in self.fields}
        if len(given) > 1 and not any(isinstance(values[name], list | Mapping) for name in given):
            values = {",".join(given): record_text({name: values[name] for name in given}), target: values[target]}
        told = _texts([*values.values()], (*values,), where)
        if isinstance(told, Problem):
            report(told)
        elif self.kind == "pairs":
            yield where, tuple(told)
        else:
            yield from document(told[0], where, report)


def wanted_of(names: Iterable[str], asked: Asked, origin: str) -> Wanted | None:
    """What to take from records with these fields: those asked for, else "messages", else "text"; None where neither is there.

    Raises BadData COLUMN_UNKNOWN.
    """
    names = list(names)
    given = given_columns(asked.condition, names)
    fields = (*given, *([] if asked.target is None else [asked.target]))
    for name in fields:
        if name not in names:
            raise BadData("COLUMN_UNKNOWN", f"{origin} has no column '{printable(name)}'.", near(name, map(printable, names)))
    label = asked.named if asked.named in names else None
    if fields:
        return Wanted("pairs" if given else "plain", fields, label)
    found: Literal["chats", "plain"] | None = "chats" if "messages" in names else "plain" if "text" in names else None
    return found and Wanted(found, ("messages" if found == "chats" else "text",), label)


def given_columns(condition: str | None, names: Iterable[str] = ()) -> tuple[str, ...]:
    """The columns that a condition names, where these are there: one of that name, or several."""
    if condition is None or condition in names:
        return () if condition is None else (condition,)
    return tuple(filter(None, (name.strip() for name in condition.split(","))))


def record_text(record: Mapping[str, Any]) -> str:
    """A record as the text that another is given: a line for each cell that is there, its name before it."""
    said = {name: value.decode(errors="replace") if isinstance(value, bytes) else str(value) for name, value in record.items()
            if value is not None and value == value}
    return "\n".join(f"{name}: {text.strip()}" for name, text in said.items() if text.strip())


def nothing_named(names: Iterable[str], origin: str) -> BadData:
    """COLUMN_UNKNOWN for records with these fields, of which none is known for a text."""
    shown = ", ".join(printable(name) for name in list(names)[:8])
    return BadData("COLUMN_UNKNOWN", f"{origin} has neither a field 'text' nor 'messages', but {shown}.",
                   "Name the field of the text (target=), and that of its condition where there is one (condition=).")


def _texts(values: list[Any], fields: tuple[str, ...], where: str) -> list[bytes] | Problem:
    """Each value as UTF-8, or what is wrong with the first that has none."""
    found = []
    for name, value in zip(fields, values, strict=True):
        empty = not (value if isinstance(value, bytes) else str(value)).strip()
        if value is None or (len(fields) > 1 and empty):
            code = "PAIR_EMPTY" if len(fields) > 1 else "TEXT_MISSING"
            return problem(code, where, f"'{printable(name)}' is {'missing' if value is None else repr(value)}.",
                           "Give every record a text there.")
        if isinstance(value, list | dict):
            return problem("TAB_TYPE", where, f"'{printable(name)}' is {printable(value, 60)}, not a text.", "Give a text.")
        encoded = _encoded(value, where)
        if isinstance(encoded, Problem):
            return encoded
        found.append(encoded)
    return found


def _chat(messages: Any, where: str) -> list[tuple[str, bytes]] | Problem:
    """Roles and texts, or what is wrong with the chat."""
    if not isinstance(messages, list) or not all(isinstance(message, Mapping) for message in messages):
        return problem("CHAT_FORM", where, f"'messages' is {printable(messages, 60)}.",
                       'Give a list of objects such as {"role": "user", "content": "..."}.')
    chat = []
    for message in messages:
        role, content = message.get("role"), message.get("content")
        if role not in ROLES:
            return problem("CHAT_ROLE", where, f"the role {printable(role, 40)!r} is not known.", f"Known: {', '.join(ROLES)}.")
        if not isinstance(content, str | bytes):
            return problem("CHAT_FORM", where, f"the content of a message is {printable(content, 60)}.", "Give a text.")
        encoded = _encoded(content, where)
        if isinstance(encoded, Problem):
            return encoded
        chat.append((role, encoded))
    if not any(role == "assistant" and text for role, text in chat):
        roles = ", ".join(role for role, _ in chat) or "none"
        return problem("CHAT_NO_ANSWER", where, f"no message of the assistant says anything (roles: {printable(roles, 60)}).",
                       "A chat is learned by its answers: give at least one.")
    return chat


def _encoded(value: Any, where: str) -> bytes | Problem:
    if isinstance(value, bytes):
        return value
    try:
        return str(value).encode()
    except UnicodeEncodeError as error:
        found = f"U+{ord(error.object[error.start]):04X}"
        return problem("TEXT_ENCODING", where, f"it holds the lone surrogate {found} at character {error.start:,}.",
                       "A surrogate stands for half a character; decode the text anew from its bytes.")


def document(text: str | bytes, where: str, report: Report) -> Iterator[Row]:
    """A document by its stretches; the parts of one that is long have their numbers in their names."""
    told = _encoded(text, where)
    if isinstance(told, Problem):
        report(told)
        return
    for part, stretch in enumerate(stretches(iter((told,))), 1):
        whole = stretch.begins and stretch.ends
        yield where if whole else f"{where}, part {part}", (stretch.text, stretch.begins, stretch.ends)
