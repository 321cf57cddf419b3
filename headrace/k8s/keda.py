"""KEDA's ScaledObject as far as flows use it: what KEDA 2.20 takes, and no field more.

Written after KEDA's CustomResourceDefinition and the metadata of its scalers `kafka` and `apache-kafka`; a cluster's
API server would drop what the definition does not know, silently, and KEDA passes over metadata it does not know.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel

Flag = Literal["true", "false"]
Whole = Field(default=None, pattern=r"^\d+$")


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, alias_generator=to_camel)


class Target(Strict):
    name: str
    kind: str | None = None
    api_version: str | None = None
    env_source_container_name: str | None = None


class Fallback(Strict):
    failure_threshold: int = Field(ge=0)
    replicas: int = Field(ge=0)
    behavior: Literal["static", "currentReplicas", "currentReplicasIfHigher", "currentReplicasIfLower"] | None = None


class Policy(Strict):
    type: Literal["Pods", "Percent"]
    value: int = Field(ge=1)
    period_seconds: int = Field(ge=1, le=1800)


class Direction(Strict):
    stabilization_window_seconds: int | None = Field(None, ge=0, le=3600)
    select_policy: Literal["Max", "Min", "Disabled"] | None = None
    policies: list[Policy] | None = None
    tolerance: int | str | None = None


class Behaviour(Strict):
    scale_up: Direction | None = None
    scale_down: Direction | None = None


class Autoscaler(Strict):
    name: str | None = None
    behavior: Behaviour | None = None


class Advanced(Strict):
    horizontal_pod_autoscaler_config: Autoscaler | None = None
    restore_to_original_replica_count: bool | None = None


class KafkaMetadata(Strict):
    """A trigger's metadata is text throughout, numbers and truths too."""

    bootstrap_servers: str | None = None
    bootstrap_servers_from_env: str | None = None
    consumer_group: str
    topic: str | None = None
    partition_limitation: str | None = None
    lag_threshold: str | None = Field(None, pattern=r"^[1-9]\d*$")
    activation_lag_threshold: str | None = Whole
    offset_reset_policy: Literal["earliest", "latest"] | None = None
    allow_idle_consumers: Flag | None = None
    exclude_persistent_lag: Flag | None = None
    scale_to_zero_on_invalid_offset: Flag | None = None
    limit_to_partitions_with_lag: Flag | None = None
    ensure_even_distribution_of_partitions: Flag | None = None
    sasl: str | None = None
    tls: Literal["enable", "disable"] | None = None
    version: str | None = None
    unsafe_ssl: Flag | None = None

    @model_validator(mode="after")
    def _agrees(self) -> KafkaMetadata:
        if (self.bootstrap_servers is None) == (self.bootstrap_servers_from_env is None):
            raise ValueError("needs bootstrapServers, or bootstrapServersFromEnv")
        limited = self.limit_to_partitions_with_lag == "true"
        if limited and self.allow_idle_consumers == "true":
            raise ValueError("allowIdleConsumers and limitToPartitionsWithLag exclude each other")
        if limited and self.topic is None:
            raise ValueError("limitToPartitionsWithLag needs a topic")
        return self


class Reference(Strict):
    name: str
    kind: Literal["TriggerAuthentication", "ClusterTriggerAuthentication"] | None = None


class Trigger(Strict):
    type: Literal["kafka", "apache-kafka"]
    name: str | None = None
    metadata: KafkaMetadata
    authentication_ref: Reference | None = None
    metric_type: Literal["AverageValue", "Value"] | None = None
    use_cached_metrics: bool | None = None


    @model_validator(mode="after")
    def _known(self) -> Trigger:
        if self.type == "apache-kafka" and {"version", "unsafe_ssl"} & self.metadata.model_fields_set:
            raise ValueError("the trigger apache-kafka knows neither version nor unsafeSsl")
        return self


class Spec(Strict):
    scale_target_ref: Target
    polling_interval: int | None = Field(None, ge=1)
    cooldown_period: int | None = Field(None, ge=0)
    initial_cooldown_period: int | None = Field(None, ge=0)
    idle_replica_count: int | None = Field(None, ge=0)
    min_replica_count: int | None = Field(None, ge=0)
    max_replica_count: int | None = Field(None, ge=1)
    fallback: Fallback | None = None
    advanced: Advanced | None = None
    triggers: list[Trigger] = Field(min_length=1)

    @model_validator(mode="after")
    def _agrees(self) -> Spec:
        if (self.min_replica_count or 0) > (self.max_replica_count or 100):
            raise ValueError("minReplicaCount is greater than maxReplicaCount")
        if self.idle_replica_count is not None and self.idle_replica_count >= (self.min_replica_count or 0):
            raise ValueError("idleReplicaCount must be less than minReplicaCount")
        return self


class ScaledObject(Strict):
    api_version: Literal["keda.sh/v1alpha1"]
    kind: Literal["ScaledObject"]
    metadata: dict[str, Any]
    spec: Spec
