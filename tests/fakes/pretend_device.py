"""GPUs that are pretended, on a machine without one: what CUDA would refuse is refused here.

A `PretendTensor` says that it is on `cuda:N` and keeps its numbers in a tensor on
the CPU. While `pretending()` is entered, operators run on the numbers and raise
where CUDA's would: when tensors of several devices meet, and when numpy is asked
for. accelerate's real hooks run over such devices, so a model can be split.

What would cost time on a GPU is counted: operators that are launched, uploads, and
synchronisations, where the CPU waits for the device. An upload is one of these too
unless it says `non_blocking=True`. Time passes on the devices as operators are
launched, and never on the CPU, so `torch.cuda.Event` measures what the CPU cannot.

Most operators reach `_run` through torch's dispatcher. What C++ does before that
with a device in mind, indexing among it, is done in `_Functions`.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from tests.fakes import device_costs

aten = torch.ops.aten
CPU = torch.device("cpu")

# Operators that take indices from the CPU besides those from the device of what they index.
_INDEXING = {
    aten.index.Tensor,
    aten.index_put_.default,
    aten.index_put.default,
    aten._index_put_impl_.default,
}

# Operators that wait for a device, because the shape of their result depends on numbers.
_WAITING = {
    aten.nonzero.default,
    aten._unique2.default,
    aten.masked_select.default,
    aten.equal.default,
}

# Operators that compute nothing.
_FREE = {
    aten.alias.default,
    aten.detach.default,
    aten.lift_fresh.default,
    aten._unsafe_view.default,
    aten.empty.memory_format,
    aten.empty_like.default,
    aten.empty_strided.default,
    aten.new_empty.default,
    aten.new_empty_strided.default,
}

# Operators of a kernel that attends with a bool mask: it is made one of numbers first.
_ATTENTION_LAUNCHES = {False: 1, True: 3}

_to = torch.Tensor.to
_attention = F.scaled_dot_product_attention


class MixedDevices(RuntimeError):
    """Tensors of several devices have met."""


class PretendTensor(torch.Tensor):
    """A tensor on a pretended GPU.

    Attributes:
        numbers: what is in it, on the CPU.
        place: the GPU.
    """

    numbers: torch.Tensor
    place: torch.device

    @staticmethod
    def __new__(cls, numbers, place=None, requires_grad=False):
        if place is None:  # as accelerate makes a parameter anew
            if isinstance(numbers, PretendTensor):
                return numbers
            return torch.nn.Parameter(numbers, requires_grad=False)
        tensor = torch.Tensor._make_wrapper_subclass(
            cls,
            numbers.size(),
            strides=numbers.stride(),
            storage_offset=numbers.storage_offset(),
            dtype=numbers.dtype,
            layout=numbers.layout,
            device=place,
            requires_grad=False,
        )
        tensor.numbers, tensor.place = numbers, place
        return tensor

    def __init__(self, numbers, place=None, requires_grad=False):
        pass

    def __repr__(self):
        return f"PretendTensor({self.place}, {self.numbers!r})"

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        special = _SPECIAL.get(getattr(func, "__name__", ""))
        if special is not None and isinstance(args[0], PretendTensor):
            return special(*args)
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **(kwargs or {}))

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {})


def _no_numpy(tensor: PretendTensor, *_: object) -> None:
    raise TypeError(f"can't convert {tensor.place} device type tensor to numpy")


def _scalar(name: str) -> Callable[..., Any]:
    """Returns a method that hands over numbers, for which the CPU waits."""

    def read(tensor: PretendTensor, *args: Any) -> Any:
        device_costs.wait(name)
        return getattr(tensor.numbers, name)(*tree_map(_numbers, args))

    return read


def _attribute(name: str) -> Callable[..., Any]:
    """Returns a method that tells what is known without the device."""
    return lambda tensor, *args: getattr(tensor.numbers, name)(*args)


def _numbers(value: object) -> object:
    return value.numbers if isinstance(value, PretendTensor) else value


def _place(value: object) -> torch.device | None:
    """Returns where a tensor is; None for what is no tensor, or is a number in one."""
    if isinstance(value, PretendTensor):
        return value.place
    return CPU if isinstance(value, torch.Tensor) and value.dim() > 0 else None


def gpu(device: object) -> torch.device | None:
    """Reads a device as one of the pretended GPUs; None if it is none."""
    if isinstance(device, int) and not isinstance(device, bool):
        return torch.device("cuda", device)
    found = None if device is None else torch.device(device)
    return torch.device("cuda", found.index or 0) if found and found.type == "cuda" else None


# --- Operators -----------------------------------------------------------------------------------


def _run(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Runs an operator on numbers, if CUDA would run it on these devices."""
    if func is aten._to_copy.default:
        return _copy(args[0], kwargs)
    if func is aten.copy_.default:
        _count_copy(_device(args[1]), _device(args[0]), *args[2:], **kwargs)
        func(_numbers(args[0]), _numbers(args[1]), *args[2:], **kwargs)
        return args[0]
    if func is aten._local_scalar_dense.default:
        if isinstance(args[0], PretendTensor):
            device_costs.wait("item")
        return func(_numbers(args[0]))
    if torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd"):
        with _Dispatch():
            result = func.decompose(*args, **kwargs)
        if result is not NotImplemented:
            return result
    flat, spec = tree_flatten((args, kwargs))
    tensors = [value for value in flat if isinstance(value, PretendTensor)]
    place = _check(func, args, flat)
    if "device" in kwargs and kwargs["device"] is not None:
        place = gpu(kwargs["device"])
    if place is None and not tensors:
        return func(*args, **kwargs)
    _count(func, args)
    inner = [CPU if gpu_or_none(value) else _numbers(value) for value in flat]
    inner_args, inner_kwargs = tree_unflatten(inner, spec)
    inner_kwargs.pop("pin_memory", None)
    given = {id(tensor.numbers): tensor for tensor in tensors}  # in place, they are returned

    def wrapped(value: object) -> object:
        if not isinstance(value, torch.Tensor):
            return value
        if id(value) in given:
            return given[id(value)]
        return value if place is None else PretendTensor(value, place)

    return tree_map(wrapped, func(*inner_args, **inner_kwargs))


def _count(func: Any, args: tuple[Any, ...]) -> None:
    """Counts an operator that runs on a device."""
    if func in _FREE or any(
        r.alias_info and not r.alias_info.is_write for r in func._schema.returns
    ):
        return
    device_costs.counted.launches += 1
    if func in _WAITING:
        device_costs.wait(func.__name__)
    if func in _INDEXING:
        _count_indices(args[1])


def _count_indices(indices: Any) -> None:
    """Counts what indices cost: those from the CPU are uploaded, masks are looked for."""
    for index in indices:
        if isinstance(index, list) or _place(index) == CPU:
            device_costs.upload()
        elif isinstance(index, PretendTensor) and index.dtype == torch.bool:
            device_costs.wait("index by mask")


def _count_copy(source: torch.device, target: torch.device, non_blocking: bool = False) -> None:
    if "cuda" not in (source.type, target.type):
        return
    if source.type == target.type:
        device_costs.counted.launches += 1
    elif target.type == "cuda":
        device_costs.upload(blocking=not non_blocking)
    else:
        device_costs.wait("copy to the CPU")


def _device(tensor: torch.Tensor) -> torch.device:
    return tensor.place if isinstance(tensor, PretendTensor) else torch.device(tensor.device)


def gpu_or_none(value: object) -> torch.device | None:
    """Returns a value that is a pretended GPU, and None for any other."""
    return gpu(value) if isinstance(value, torch.device) else None


def _check(func: Any, args: tuple[Any, ...], flat: list[Any]) -> torch.device | None:
    """Returns the GPU on which an operator runs, None for the CPU.

    Raises:
        MixedDevices: its tensors are on several devices.
    """
    if func in _INDEXING:
        place = _place(args[0])
        for index in args[1]:
            if _place(index) not in (None, CPU, place):
                raise MixedDevices(
                    "indices should be either on cpu or on the same device as the indexed tensor "
                    f"({place}), not {_place(index)}"
                )
        values = args[2] if len(args) > 2 else None
        if _place(values) not in (None, place):
            raise MixedDevices(f"values on {_place(values)} put into a tensor on {place}")
        return None if place == CPU else place
    places = {place for place in map(_place, flat) if place is not None}
    if len(places) > 1:
        raise MixedDevices(
            f"Expected all tensors to be on the same device, but found {places}: {func}"
        )
    return next((value.place for value in flat if isinstance(value, PretendTensor)), None)


def _copy(tensor: torch.Tensor, kwargs: dict[str, Any]) -> torch.Tensor:
    """Moves or converts a tensor: the one operator that may cross devices."""
    there = kwargs.get("device")
    place = gpu(there) if there is not None else getattr(tensor, "place", None)
    source, target = _device(tensor), place or torch.device(there or "cpu")
    if target.type != "meta":
        _count_copy(source, target, kwargs.get("non_blocking", False))
    inner = {**kwargs, "device": CPU if place else there}
    inner.pop("pin_memory", None)
    result = aten._to_copy.default(_numbers(tensor), **inner)
    return PretendTensor(result, place) if place else result


class _Dispatch(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {})


# --- What C++ does before it dispatches ----------------------------------------------------------


def _move(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    """`Tensor.to`."""
    device, dtype = kwargs.get("device"), kwargs.get("dtype")
    for value in args:
        if isinstance(value, torch.dtype):
            dtype = value
        elif isinstance(value, torch.Tensor):
            device, dtype = value.device, value.dtype
        elif isinstance(value, str | torch.device) or type(value) is int:
            device = value
    here = getattr(tensor, "place", tensor.device)
    there = here if device is None else gpu(device) or torch.device(device)
    if here.type != "cuda" and there.type != "cuda":
        return _to(tensor, *args, **kwargs)
    if here == there and dtype in (None, tensor.dtype) and not kwargs.get("copy"):
        return tensor
    blocking = not kwargs.get("non_blocking", False)
    return _copy(
        tensor,
        {"dtype": dtype or tensor.dtype, "device": there, "non_blocking": not blocking},
    )


def _get(tensor: torch.Tensor, index: Any) -> torch.Tensor:
    parts = _parts(index)
    place = _check(aten.index.Tensor, (tensor, parts), [])
    found = _plain(tensor)[tree_map(_numbers, index)]
    if place is None:
        return found
    if _is_advanced(parts):
        device_costs.counted.launches += 1
        _count_indices(parts)
    return PretendTensor(found, place)


def _set(tensor: torch.Tensor, index: Any, value: Any) -> None:
    parts = _parts(index)
    place = _device(tensor)
    if _is_advanced(parts):
        _check(aten.index_put_.default, (tensor, parts, value), [])
        device_costs.counted.launches += 1
        _count_indices(parts)
    elif isinstance(value, torch.Tensor):
        _count_copy(_device(value), place)
    elif place.type == "cuda":
        device_costs.counted.launches += 1
    _plain(tensor)[tree_map(_numbers, index)] = _numbers(value)


def _is_advanced(parts: tuple[Any, ...]) -> bool:
    return any(isinstance(part, torch.Tensor | list) for part in parts)


def _parts(index: Any) -> tuple[Any, ...]:
    return index if isinstance(index, tuple) else (index,)


def _plain(tensor: torch.Tensor) -> torch.Tensor:
    if isinstance(tensor, PretendTensor):
        return tensor.numbers
    return tensor.as_subclass(torch.Tensor)


def _attend(query: Any, key: Any, value: Any, attn_mask: Any = None, **kwargs: Any) -> Any:
    """One fused operator, as on CUDA."""
    tensors = [query, key, value, attn_mask]
    place = _check(_attention, (), tensors)
    result = _attention(*map(_numbers, tensors), **kwargs)
    if place is None:
        return result
    has_bool_mask = attn_mask is not None and attn_mask.dtype == torch.bool
    device_costs.counted.launches += _ATTENTION_LAUNCHES[has_bool_mask]
    return PretendTensor(result, place)


_SPECIAL: dict[str, Callable[..., Any]] = {
    **dict.fromkeys(("numpy", "__array__"), _no_numpy),
    **{name: _attribute(name) for name in ("data_ptr", "untyped_storage")},
    **{
        name: _scalar(name)
        for name in (
            *("tolist", "item", "is_nonzero", "__contains__"),
            *("__bool__", "__int__", "__float__", "__index__"),
        )
    },
    "__invert__": lambda tensor: torch.bitwise_not(tensor),
    "__deepcopy__": lambda tensor, _: PretendTensor(tensor.numbers.clone(), tensor.place),
    "__getitem__": _get,
    "__setitem__": _set,
    "cpu": lambda tensor: _move(tensor, "cpu"),
}


class _Functions(TorchFunctionMode):
    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if func is _attention:
            return _attend(*args, **kwargs)
        if name == "to" and args and isinstance(args[0], torch.Tensor):
            return _move(*args, **kwargs)
        if name in ("__getitem__", "__setitem__"):
            pretended = [t for t in tree_flatten(args)[0] if isinstance(t, PretendTensor)]
            if pretended:
                return _SPECIAL[name](*args)
        elif name in _SPECIAL and args and isinstance(args[0], PretendTensor):
            return _SPECIAL[name](*args)
        if name == "copy_" and any(isinstance(one, PretendTensor) for one in args):
            return _run(aten.copy_.default, args, kwargs)
        if name == "nonzero" and isinstance(args[0], PretendTensor) and not kwargs:
            return _run(aten.nonzero.default, args, {})
        if func is torch.tensor and gpu(kwargs.get("device")):
            place = gpu(kwargs.pop("device"))
            device_costs.upload()
            return PretendTensor(func(*args, **kwargs), place)
        return func(*args, **kwargs)


@contextmanager
def pretending() -> Iterator[device_costs.Costs]:
    """Makes the devices `cuda:0`, `cuda:1` and so on exist, and counts what is asked of them."""
    torch._C._ensureCUDADeviceGuardSet()
    device_costs.counted.clear()
    with (
        mock.patch.object(torch.cuda, "_lazy_init"),
        mock.patch.object(torch.cuda, "Event", device_costs.Event),
        mock.patch.object(torch.cuda, "current_stream"),
        _Dispatch(),
        _Functions(),
    ):
        yield device_costs.counted
