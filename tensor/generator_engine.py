"""The Mersenne Twister under every random number: seeding, state bytes and raw words.

Words come out in the order in which PyTorch's CPU generator hands them out. The algorithm is
MT19937 (Matsumoto and Nishimura 1998, doi:10.1145/272991.272995) with the 2002 seeding.
"""

import math
import operator
import os
from collections.abc import Callable
from functools import cached_property
from typing import Any, Self

import numpy as np

DEFAULT_SEED = 67280421310721
WORDS = 624

# PyTorch's record of a CPU generator, 5056 bytes: old fields that nobody reads any more lie in the gaps.
STATE = np.dtype(
    {
        "names": ["seed", "left", "seeded", "next", "key", "normal", "has_normal"],
        "formats": ["<u8", "<i4", "<i4", "<u8", ("<u8", WORDS), "<f8", "<i4"],
        "offsets": [0, 8, 12, 16, 24, 5024, 5040],
        "itemsize": 5056,
    }
)


class Engine:
    """A stream of 32-bit words that PyTorch's CPU generator with the same seed also gives.

    Safe to share between threads as far as every word is used once; which thread gets which is then chance.
    """

    def __new__(cls, device: Any = "cpu") -> Any:
        """`Generator("cuda")` is the GPU's kind, where there is a GPU."""
        if str(device).startswith("cuda"):
            from .backend.cuda import runtime

            if runtime.device_count():
                from .backend.cuda import random

                return random.Generator(random.check_index(random.device_index(device)))
        return super().__new__(cls)

    def __init__(self, device: Any = "cpu") -> None:
        if str(device) != "cpu":
            raise RuntimeError(
                f"[Generator] device must be 'cpu', got {str(device)!r}: "
                "make the numbers on the CPU and move them"
            )
        self.device = device
        self._seed = DEFAULT_SEED
        self._next_normal: float | None = None

    @cached_property
    def _words(self) -> tuple[Any, Any]:
        # numpy.random costs 10 ms to import: not before the first number is wanted.
        from numpy.random import MT19937, RandomState

        bits = MT19937(0)
        state = RandomState(bits)  # its stream is frozen by NumPy's policy; np.random.Generator's is not
        state.seed(self._seed & 0xFFFFFFFF)
        return bits, state

    def manual_seed(self, seed: int) -> Self:
        """Start the stream again at `seed`, -2**63 to 2**64 - 1 (a negative one counts from 2**64)."""
        seed = operator.index(seed)
        if not -(2**63) <= seed < 2**64:
            raise ValueError(f"[manual_seed] seed must lie in [-2**63, 2**64), got {seed}")
        self._seed = seed % 2**64
        self._next_normal = None
        self.__dict__.pop("_words", None)
        return self

    def seed(self) -> int:
        """Seed from the operating system and return that seed."""
        return self.manual_seed(int.from_bytes(os.urandom(8), "little")).initial_seed()

    def initial_seed(self) -> int:
        """The seed that the stream started from."""
        return self._seed

    def get_state(self) -> np.ndarray:
        """The whole state: uint8 array of 5056 bytes that torch.Generator.set_state takes as well."""
        twister = self._words[0].state["state"]
        key, position = twister["key"], int(twister["pos"])
        fresh = position == WORDS and int(key[0]) == self._seed & 0xFFFFFFFF
        record = np.zeros((), STATE)
        record["seed"], record["key"], record["seeded"] = self._seed, key, 1
        record["left"] = WORDS + 1 - position
        record["next"] = 0 if fresh else position
        if self._next_normal is not None:
            record["normal"], record["has_normal"] = self._next_normal, 1
        return np.frombuffer(record.tobytes(), np.uint8).copy()

    def set_state(self, state: np.ndarray) -> Self:
        """Go on from `state`: the 5056 bytes of get_state, here or in PyTorch."""
        state = np.asarray(state)
        if state.dtype != np.uint8:
            raise TypeError(f"[set_state] state must be an array of uint8, got {state.dtype}")
        if state.size != STATE.itemsize:
            raise RuntimeError(f"[set_state] state must have {STATE.itemsize} bytes, got {state.size}")
        record = np.frombuffer(state.tobytes(), STATE)[0]
        left, after = int(record["left"]), int(record["next"])
        begun = 1 <= left <= WORDS and left + after == WORDS + 1
        if record["seeded"] != 1 or not (begun or (left, after) == (1, 0)):
            raise RuntimeError(
                f"[set_state] state must be that of a seeded MT19937, got seeded={record['seeded']}, "
                f"left={left}, next={after}: pass what get_state returned"
            )
        self._seed = int(record["seed"])
        self._next_normal = float(record["normal"]) if record["has_normal"] else None
        twister = {"key": record["key"].astype(np.uint32), "pos": WORDS + 1 - left}
        self._words[0].state = {"bit_generator": "MT19937", "state": twister}
        return self

    def clone_state(self) -> Self:
        """A new generator in the same state."""
        return type(self)(self.device).set_state(self.get_state())

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (type(self), self.device, self.get_state())

    def words(self, n: int) -> np.ndarray:
        """The next `n` words: uint32 array."""
        bits, state = self._words
        if n < 1024:  # random_raw starts ten times sooner, but pays 8 bytes a word
            return bits.random_raw(n).astype(np.uint32)
        return state.randint(0, 1 << 32, n, np.uint32)

    def some_words(self, n: int, take: Callable[[np.ndarray], int]) -> None:
        """Gives the next `n` words to `take`, which returns how many it used; the others are put back."""
        bits, _ = self._words
        before = bits.state
        used = take(self.words(n))
        bits.state = before
        self.words(used)

    def with_spare(self, take: Callable[[float], tuple[int, int, float]]) -> tuple[int, int]:
        """Gives the normal number left over (or NaN) to `take`, which returns two counts and what is left then."""
        made, used, spare = take(math.nan if self._next_normal is None else self._next_normal)
        self._next_normal = None if math.isnan(spare) else spare
        return made, used

    def words64(self, n: int) -> np.ndarray:
        """The next `n` 64-bit words, high half first: uint64 array."""
        pairs = self.words(2 * n).reshape(n, 2)
        return (pairs[:, 0].astype(np.uint64) << np.uint64(32)) | pairs[:, 1]

    def float32(self, out: np.ndarray) -> None:
        """Fill `out` (float32, flat) with multiples of 2**-24 in [0, 1): the low 24 bits of a word each."""
        words = self.words(out.size)
        np.bitwise_and(words, np.uint32(0xFFFFFF), out=words)
        np.multiply(words.view(np.int32), np.float32(2**-24), out=out, dtype=np.float32, casting="unsafe")

    def float64(self, out: np.ndarray) -> None:
        """Fill `out` (float64, flat) with multiples of 2**-53 in [0, 1): the low 53 bits of 64 each."""
        pairs = self.words(2 * out.size).reshape(-1, 2)
        np.multiply(pairs[:, 0] & np.uint32(0x1FFFFF), 2.0**-21, out=out)
        out += pairs[:, 1] * 2.0**-53  # both terms and the sum are exact

    def unit(self, out: np.ndarray) -> None:
        """Fill `out` with uniform numbers in [0, 1): float64 or float32, as its type is."""
        (self.float64 if out.dtype == np.float64 else self.float32)(out)

    def double(self) -> float:
        """The next float64 in [0, 1), as a Python number."""
        raw = self._words[0].random_raw
        high = raw() & 0x1FFFFF
        return (high << 32 | raw()) * 2.0**-53


def _restore(kind: type[Engine], device: Any, state: np.ndarray) -> Engine:
    return kind(device).set_state(state)
