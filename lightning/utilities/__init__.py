"""Lightning's small names: what is to happen on rank 0 alone, types, and what is installed."""

from .combined_loader import CombinedLoader
from .rank_zero import rank_zero_info, rank_zero_only, rank_zero_warn

__all__ = ["CombinedLoader", "rank_zero_info", "rank_zero_only", "rank_zero_warn"]
