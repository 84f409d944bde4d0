"""Settings: what they are, where they come from, and how ``CONFIG GET`` and ``SET`` see them."""

from pyrope.config.catalogue import Setting, every_setting, readable, readable_bounds
from pyrope.config.embed import EmbedSettings
from pyrope.config.http import HttpSettings
from pyrope.config.llm import LlmSettings, ModelPrice
from pyrope.config.observing import MetricsSettings, TracingSettings
from pyrope.config.remember import RememberSettings
from pyrope.config.render import toml_in_force
from pyrope.config.runtime import config_names, config_set
from pyrope.config.schema import (
    AliasSettings,
    CacheSettings,
    ClusterSettings,
    EngineSettings,
    GuardrailSettings,
    LimitSettings,
    LogSettings,
    Settings,
    SlowlogSettings,
    StorageSettings,
    TlsSettings,
)
from pyrope.config.sources import (
    CONFIG_ENV,
    InvalidSettingsError,
    LoadedSettings,
    load_settings,
    nested,
)

__all__ = [
    "CONFIG_ENV",
    "AliasSettings",
    "CacheSettings",
    "ClusterSettings",
    "EmbedSettings",
    "EngineSettings",
    "GuardrailSettings",
    "HttpSettings",
    "InvalidSettingsError",
    "LimitSettings",
    "LlmSettings",
    "LoadedSettings",
    "LogSettings",
    "MetricsSettings",
    "ModelPrice",
    "RememberSettings",
    "Setting",
    "Settings",
    "SlowlogSettings",
    "StorageSettings",
    "TlsSettings",
    "TracingSettings",
    "config_names",
    "config_set",
    "every_setting",
    "load_settings",
    "nested",
    "readable",
    "readable_bounds",
    "toml_in_force",
]
