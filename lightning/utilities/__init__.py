"""Lightning's small names: what is to happen on rank 0 alone, types, and what is installed."""

from .rank_zero import rank_zero_info, rank_zero_only, rank_zero_warn

__all__ = ["rank_zero_info", "rank_zero_only", "rank_zero_warn"]
