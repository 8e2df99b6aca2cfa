"""A token to add to the vocabulary."""

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Literal

import numpy as np
from lockstep.v1 import tensor_pb2 as tensor_pb
from lockstep.v1 import vocabulary_admin_service_pb2 as admin_pb
from lockstep.v1 import vocabulary_pb2 as vocabulary_pb

from lockstep_client._values import enums, tensors, token_ids
from lockstep_client._values.choices import choose
from lockstep_client._values.messages import build
from lockstep_client._values.one_line import one_line
from lockstep_client._values.tensors import Array
from lockstep_client.exceptions import WrongValue

Role = Literal["bos", "eos", "pad", "unk", "sep", "cls", "mask"]
Initialization = Literal["mean_of_pieces", "mean", "copy", "zero", "values"]

ROLES = enums.values(vocabulary_pb.SpecialTokenRole)
_INITIALIZATIONS = enums.values(vocabulary_pb.RowInitialization)


@dataclass(frozen=True, slots=True, eq=False)
class NewToken:
    """A token to add, where its text alone does not say enough.

    Attributes:
        content: the text.
        special: whether it is a control token.
        single_word: whether it matches whole words only.
        lstrip: whether a match swallows white space to its left.
        rstrip: whether a match swallows white space to its right.
        normalized: whether text is normalized before matching; None means the
            opposite of `special`.
        role: a role for it.
        more_roles: further roles for it.
        initialization: how its embedding rows get their values; None means
            `values` where `input_values` are given, else `mean_of_pieces`.
        copy_token_id: the id to copy, for `copy`.
        input_values: `[H]` values of the input embedding, for `values`.
        output_values: `[H]` values of the output row; None means the input values.
        generable: whether the model may generate it; None means only with values.
    """

    content: str
    _: KW_ONLY
    special: bool = False
    single_word: bool = False
    lstrip: bool = False
    rstrip: bool = False
    normalized: bool | None = None
    role: Role | None = None
    more_roles: Sequence[Role] = ()
    initialization: Initialization | None = None
    copy_token_id: int | None = None
    input_values: Array | None = None
    output_values: Array | None = None
    generable: bool | None = None

    __repr__ = one_line

    def to_message(self) -> admin_pb.TokenToAdd:
        """Builds the wire form.

        Raises:
            TypeError: `copy_token_id` is not a whole number.
            ValueError: a role or a way to initialize does not exist.
        """
        initialization = self.initialization or (
            "mean_of_pieces" if self.input_values is None else "values"
        )
        return build(
            admin_pb.TokenToAdd,
            token=build(
                vocabulary_pb.AddedToken,
                content=self.content,
                special=self.special,
                single_word=self.single_word,
                lstrip=self.lstrip,
                rstrip=self.rstrip,
                normalized=self.normalized,
            ),
            role=None if self.role is None else choose("role", self.role, ROLES),
            more_roles=[choose("more_roles", role, ROLES) for role in self.more_roles],
            initialization=choose("initialization", initialization, _INITIALIZATIONS),
            copy_token_id=None if self.copy_token_id is None else token_ids.one(self.copy_token_id),
            input_values=_vector(self.input_values),
            output_values=_vector(self.output_values),
            generable=self.generable,
        )


def _vector(values: Array | None) -> tensor_pb.Tensor | None:
    if values is None:
        return None
    try:
        return tensors.to_message(np.asarray(values, dtype=np.float32))
    except (TypeError, ValueError):
        raise WrongValue(f"Vectors of a token are numbers, [H], not {values!r}.") from None
