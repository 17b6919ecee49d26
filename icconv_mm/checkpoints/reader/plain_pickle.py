"""A pickle read as data: its opcodes are followed, and no class or function that it names is ever looked up.

``pickle.Unpickler`` imports what a file names, calls it, and sets attributes of what it returned. Here a name in the
file is a :class:`Name`, text and nothing else. What is done with a name (it is called, or an object of it is made) is
looked up in the table of the caller, who knows what tensors and arrays are; everything else is noted as refused.
"""

import pickletools
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING  # torch.save writes protocol 2, with the names of Python 2
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import Any, BinaryIO

MAX_DEPTH = 100  # of lists in lists; the checkpoint of a run has about ten
_FREE_COST = 64 << 20  # arguments of calls, in bytes or items, beside four times what the file itself has
_KEYS = frozenset((str, int, float, bool, bytes, type(None)))
_MARK = object()


class PickleError(ValueError):
    """The pickle is damaged, or asks for something that no plain data needs."""


class Name:
    """What a pickle calls ``module.name``; ``text`` is the name in Python 3."""

    __slots__ = ('text',)

    def __init__(self, module: str, name: str) -> None:
        module, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
        self.text = f'{module}.{name}'


class Pending:
    """An object whose state comes in a later opcode, as numpy's arrays have it; the state makes the object."""

    def __init__(self, made: Callable[[Any], Any]) -> None:
        self.made = made
        self.memos: list[int] = []


class ForeignNames(PickleError):
    """The pickle asks for names that are not in the table: ``names``."""

    def __init__(self, *names: str) -> None:
        super().__init__(', '.join(names))
        self.names = names


class Refusal(ForeignNames):
    """A function of the table refuses the call; the name says which."""


class _Foreign:
    """Stands for what a refused call would have returned, so that all refused names of a file can be listed."""


def read_plain(
    file: BinaryIO,
    calls: Mapping[str, Callable[..., Any]],
    constants: Mapping[str, Any],
    persistent: Callable[[Any], Any] | None = None,
) -> Any:
    """Read one pickle from a seekable file, which is left behind its end.

    Args:
        file: A pickle of any protocol up to 5, without out-of-band buffers. Text of Python 2 is taken as latin-1.
        calls: Dotted name -> what a call of it with the arguments in the file gives; a :class:`Pending` where a state
            follows.
        constants: Dotted name -> the object that stands for it.
        persistent: Function persistent id -> the object that it stands for; None to refuse such ids.

    Raises:
        ForeignNames: The pickle names something else.
        ValueError, TypeError, ...: It is damaged.
    """
    machine = _Machine(calls, constants, persistent)
    start = file.tell()
    try:
        value = machine.run(pickletools.genops(file), start, file)
        machine.check(value)
    except Exception as error:
        if not machine.foreign or isinstance(error, MemoryError):
            raise
        raise ForeignNames(*machine.foreign) from None
    if machine.foreign:
        raise ForeignNames(*machine.foreign)
    return value


class _Machine:
    """The stack and the memo of one pickle."""

    def __init__(self, calls, constants, persistent) -> None:
        self.calls, self.constants, self.persistent = calls, constants, persistent
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.foreign: dict[str, None] = {}
        self.cost = 0

    def run(self, opcodes: Iterator, start: int, file: BinaryIO) -> Any:
        stack, memo = self.stack, self.memo
        for opcode, argument, position in opcodes:
            name = opcode.name
            if name in _LITERALS:
                stack.append(argument)
            elif name == 'BINPUT' or name == 'LONG_BINPUT' or name == 'PUT':
                self.remember(argument)
            elif name == 'BINGET' or name == 'LONG_BINGET' or name == 'GET':
                stack.append(memo[argument])
            elif name == 'STOP':
                break
            elif (action := _ACTIONS.get(name)) is not None:
                action(self, argument)
                if name in _EXPENSIVE and self.cost > _FREE_COST + 4 * (file.tell() - start):
                    raise PickleError('it uses parts of itself too often')
            elif name not in _IGNORED:
                raise PickleError(f'opcode {name} at byte {position}')
        (value,) = stack
        return value

    # --- the stack --------------------

    def remember(self, key: int) -> None:
        self.memo[key] = value = self.stack[-1]
        if type(value) is Pending:
            value.memos.append(key)

    def since_mark(self) -> list:
        stack = self.stack
        for i in range(len(stack) - 1, -1, -1):
            if stack[i] is _MARK:
                items = stack[i + 1 :]
                del stack[i:]
                return items
        raise PickleError('no mark')

    def tuple_of(self, count: int) -> None:
        if len(self.stack) < count:
            raise PickleError('too few items')
        items = tuple(self.stack[-count:])
        del self.stack[-count:]
        self.stack.append(items)

    # --- containers --------------------

    def append(self, items: list) -> None:
        target = self.stack[-1]
        if type(target) is not list and type(target) is not _Foreign:
            raise PickleError(f'a {type(target).__name__} is appended to')
        if type(target) is list:
            target.extend(items)

    def set_items(self, items: list) -> None:
        target = self.stack[-1]
        if type(target) is _Foreign:
            return
        if type(target) not in (dict, OrderedDict) or len(items) % 2:
            raise PickleError(f'items of a {type(target).__name__} are set')
        for key, value in zip(items[::2], items[1::2]):
            target[self.key(key)] = value

    def add_items(self, items: list) -> None:
        target = self.stack[-1]
        if type(target) is not set:
            raise PickleError(f'a {type(target).__name__} is added to')
        target.update(map(self.key, items))

    def key(self, key: Any) -> Any:
        """A key of a dict: its hash is neither a deep recursion nor chosen to collide with those of the others."""
        parts = key if type(key) is tuple else (key,)
        if len(parts) > 16 or any(
            type(part) not in _KEYS or (type(part) is int and abs(part) >= 2**61 - 1) for part in parts
        ):
            raise PickleError(f'a key of type {type(key).__name__}')
        return key

    # --- names --------------------

    def name(self, module: Any, name: Any) -> None:
        if type(module) is not str or type(name) is not str:
            raise PickleError('a name that is no text')
        found = Name(module, name)
        if found.text not in self.calls and found.text not in self.constants:
            self.refuse(found.text)
        self.stack.append(self.constants.get(found.text, found))

    def refuse(self, name: str) -> None:
        self.foreign[name] = None

    def call(self, function: Any, arguments: Any) -> None:
        """Put the result of a call on the stack."""
        if type(arguments) is not tuple:
            raise PickleError('arguments that are no tuple')
        result: Any = _Foreign()
        if type(function) is Name and function.text in self.calls:
            self.cost += sum(len(each) for each in arguments if type(each) in _SIZED)
            try:
                result = self.calls[function.text](*arguments)
            except Refusal as refused:
                self.refuse(*refused.names)
        elif type(function) is Name:
            self.refuse(function.text)
        elif type(function) is not _Foreign:
            raise PickleError(f'a {type(function).__name__} is called')
        self.stack.append(result)

    def build(self) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if type(target) is Pending:
            if type(state) is tuple:
                self.cost += sum(len(each) for each in state if type(each) in _SIZED)
            self.stack[-1] = made = target.made(state)
            for key in target.memos:
                self.memo[key] = made
        elif type(target) is OrderedDict:
            _set_metadata(target, state)
        elif type(target) is not _Foreign:
            raise PickleError(f'a {type(target).__name__} is given a state')

    # --- the result --------------------

    def check(self, value: Any) -> None:
        """Raise unless nothing is nested too deeply or in a circle, and nothing is a name or half an object."""
        depths: dict[int, int] = {}  # of what has been seen; 0 while its inside is being looked at
        todo: list[tuple[Any, bool]] = [(value, False)]
        while todo:
            node, seen = todo.pop()
            if type(node) is Name:
                self.refuse(node.text)
            elif type(node) is Pending:
                raise PickleError('an object without a state')
            inside = _inside(node)
            if inside is None:
                continue
            if seen:
                depths[id(node)] = depth = 1 + max((depths.get(id(each), 0) for each in inside), default=0)
                if depth > MAX_DEPTH:
                    raise PickleError(f'it is nested more than {MAX_DEPTH} levels deep')
            elif depths.get(id(node)) == 0:
                raise PickleError('it holds itself')
            elif id(node) not in depths:
                depths[id(node)] = 0
                todo.append((node, True))
                todo += [(each, False) for each in inside if id(each) not in depths or depths[id(each)] == 0]


def _inside(node: Any) -> list | None:
    if isinstance(node, dict):
        return list(node.values())
    return node if type(node) in (list, tuple) else None


def _set_metadata(target: OrderedDict, state: Any) -> None:
    """What ``Module.state_dict`` hangs on its result: the version of each module, by its name; the rest is left."""
    found = state.get('_metadata') if type(state) is dict else None
    if isinstance(found, dict):
        target._metadata = OrderedDict(
            (key, value)
            for key, value in found.items()
            if type(key) is str and isinstance(value, dict) and type(value.get('version', 1)) is int
        )


_SIZED = frozenset((str, bytes, list, tuple, dict, OrderedDict, set))
_EXPENSIVE = frozenset(('REDUCE', 'NEWOBJ', 'BUILD'))
_IGNORED = frozenset(('PROTO', 'FRAME'))
_LITERALS = frozenset(
    ('INT', 'BININT', 'BININT1', 'BININT2', 'LONG', 'LONG1', 'LONG4', 'FLOAT', 'BINFLOAT', 'STRING', 'BINSTRING')
    + ('SHORT_BINSTRING', 'UNICODE', 'BINUNICODE', 'SHORT_BINUNICODE', 'BINUNICODE8', 'BINBYTES', 'SHORT_BINBYTES')
    + ('BINBYTES8', 'BYTEARRAY8')
)


def _push(make: Callable[[], Any]) -> Callable:
    return lambda machine, _: machine.stack.append(make())


def _name_of_line(machine: _Machine, argument: str) -> None:
    machine.name(*argument.split(' ', 1))


def _stack_global(machine: _Machine, _) -> None:
    name, module = machine.stack.pop(), machine.stack.pop()
    machine.name(module, name)


def _call(machine: _Machine, _) -> None:
    arguments, function = machine.stack.pop(), machine.stack.pop()
    machine.call(function, arguments)


def _instance(machine: _Machine, argument: str) -> None:
    _name_of_line(machine, argument)
    raise PickleError(f'an instance of {argument}')


def _persistent_id(machine: _Machine, _) -> None:
    if machine.persistent is None:
        raise PickleError('a persistent id')
    machine.stack.append(machine.persistent(machine.stack.pop()))


def _dict_of_items(machine: _Machine, _) -> None:
    items = machine.since_mark()
    machine.stack.append({})
    machine.set_items(items)


def _set_item(machine: _Machine, _) -> None:
    value, key = machine.stack.pop(), machine.stack.pop()
    machine.set_items([key, value])


_ACTIONS: dict[str, Callable[[_Machine, Any], None]] = {
    'NONE': _push(lambda: None),
    'NEWTRUE': _push(lambda: True),
    'NEWFALSE': _push(lambda: False),
    'EMPTY_TUPLE': _push(tuple),
    'EMPTY_LIST': _push(list),
    'EMPTY_DICT': _push(dict),
    'EMPTY_SET': _push(set),
    'MARK': _push(lambda: _MARK),
    'POP': lambda machine, _: machine.stack.pop(),
    'POP_MARK': lambda machine, _: machine.since_mark(),
    'DUP': lambda machine, _: machine.stack.append(machine.stack[-1]),
    'MEMOIZE': lambda machine, _: machine.remember(len(machine.memo)),
    'TUPLE': lambda machine, _: machine.stack.append(tuple(machine.since_mark())),
    'TUPLE1': lambda machine, _: machine.tuple_of(1),
    'TUPLE2': lambda machine, _: machine.tuple_of(2),
    'TUPLE3': lambda machine, _: machine.tuple_of(3),
    'LIST': lambda machine, _: machine.stack.append(machine.since_mark()),
    'DICT': _dict_of_items,
    'FROZENSET': lambda machine, _: machine.stack.append(frozenset(map(machine.key, machine.since_mark()))),
    'APPEND': lambda machine, _: machine.append([machine.stack.pop()]),
    'APPENDS': lambda machine, _: machine.append(machine.since_mark()),
    'SETITEM': _set_item,
    'SETITEMS': lambda machine, _: machine.set_items(machine.since_mark()),
    'ADDITEMS': lambda machine, _: machine.add_items(machine.since_mark()),
    'GLOBAL': _name_of_line,
    'STACK_GLOBAL': _stack_global,
    'INST': _instance,
    'REDUCE': _call,
    'NEWOBJ': _call,
    'BUILD': lambda machine, _: machine.build(),
    'BINPERSID': _persistent_id,
}
