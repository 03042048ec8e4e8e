"""Callbacks: objects that the loop calls."""

from .accumulation import GradientAccumulationScheduler
from .averaging import EMA, EMAWeightAveraging, StochasticWeightAveraging, WeightAveraging
from .callback import Callback
from .device_stats import DeviceStatsMonitor
from .early_stopping import EarlyStopping
from .finders import BatchSizeFinder, LearningRateFinder
from .finetuning import BackboneFinetuning, BaseFinetuning
from .html_report import HTMLReport
from .lambda_function import LambdaCallback
from .lr_monitor import LearningRateMonitor
from .model_checkpoint import ModelCheckpoint
from .model_summary import ModelSummary
from .on_exception import OnExceptionCheckpoint
from .prediction_writer import BasePredictionWriter
from .progress import RichProgressBar, TQDMProgressBar
from .throughput import ThroughputMonitor
from .timer import Timer

# In Lightning classes of their own: rich draws here either way.
RichModelSummary = ModelSummary
ProgressBar = RichProgressBar

__all__ = [
    "EMA",
    "BackboneFinetuning",
    "BaseFinetuning",
    "BasePredictionWriter",
    "BatchSizeFinder",
    "Callback",
    "DeviceStatsMonitor",
    "EMAWeightAveraging",
    "EarlyStopping",
    "GradientAccumulationScheduler",
    "HTMLReport",
    "LambdaCallback",
    "LearningRateFinder",
    "LearningRateMonitor",
    "ModelCheckpoint",
    "ModelSummary",
    "OnExceptionCheckpoint",
    "ProgressBar",
    "RichModelSummary",
    "RichProgressBar",
    "StochasticWeightAveraging",
    "TQDMProgressBar",
    "ThroughputMonitor",
    "Timer",
    "WeightAveraging",
]
