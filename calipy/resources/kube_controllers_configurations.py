"""KubeControllersConfiguration (projectcalico.org/v3), the singleton `default`: what the controllers do, and how."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal

from msgspec import UNSET, Struct, UnsetType, field

from calipy.resources.cidrs import network_or_address
from calipy.resources.definitions import SELECTOR, Constraint, Definition, Validation, only_default
from calipy.resources.dns_names import MOST_CHARACTERS, dns_name_problems
from calipy.resources.durations import PATTERN as DURATION
from calipy.resources.durations import duration_problems
from calipy.resources.labels import label_problems, metadata_problems
from calipy.resources.metadata import Kind, Problem, Resource
from calipy.resources.selectors import selector_problems

Switch = Literal["Enabled", "Disabled"]
LogSeverity = Literal["None", "Debug", "Info", "Warning", "Error", "Fatal", "Panic"]


class HostEndpointTemplate(Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, rename="camel"):
    """A pattern for host endpoints, made on each node that it selects. At least one of `interface_cidrs` and
    `interface_pattern` is there."""

    generate_name: str = ""
    """What the endpoint's name ends in, behind the node's."""
    interface_cidrs: tuple[str, ...] = field(name="interfaceCIDRs", default=())
    """Of the node's addresses, those in these ranges become the endpoint's expected ones."""
    interface_pattern: str = ""
    """A regular expression (RE2) for names of interfaces: one endpoint is made for each that matches."""
    labels: dict[str, str] = {}
    """Labels for the endpoint; they come before the node's of the same name."""
    node_selector: str = ""
    """Which nodes, by their labels; empty is all."""


class AutoHostEndpointConfig(Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, rename="camel"):
    """Host endpoints that follow the nodes."""

    auto_create: Switch | None = None
    """Whether every node gets host endpoints; Disabled if it is left out."""
    create_default_host_endpoint: Switch | None = None
    """Whether every node gets one for all its interfaces; Enabled if it is left out."""
    templates: tuple[HostEndpointTemplate, ...] = ()
    """Patterns for further ones."""


class ReconcilerConfig(Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, rename="camel"):
    """What controllers have in common that go through everything now and then."""

    reconciler_period: str | None = None
    """How often everything is gone through, as a Go duration; 5m if it is left out."""


class NodeControllerConfig(ReconcilerConfig, frozen=True, gc=False, kw_only=True, omit_defaults=True, rename="camel"):
    """The controller that clears up after nodes that are gone, and collects leaked addresses."""

    sync_labels: Switch | None = None
    """Whether labels of Kubernetes' nodes are copied to Calico's; Enabled if it is left out. It has no effect where
    Kubernetes is the datastore: they are the same object there."""
    host_endpoint: AutoHostEndpointConfig | None = None
    """Host endpoints that follow the nodes."""
    leak_grace_period: str | None = None
    """How long an address may be without a user before it is given back, as a Go duration; 15m if it is left out, 0s
    never gives one back."""


class PolicyControllerConfig(ReconcilerConfig, frozen=True, gc=False, kw_only=True, omit_defaults=True, rename="camel"):
    """The controller that copies policies of Kubernetes to etcd; it has no effect where Kubernetes is the datastore."""


class WorkloadEndpointControllerConfig(
    ReconcilerConfig, frozen=True, gc=False, kw_only=True, omit_defaults=True, rename="camel"
):
    """The controller that copies labels of pods to etcd; it has no effect where Kubernetes is the datastore."""


class ServiceAccountControllerConfig(
    ReconcilerConfig, frozen=True, gc=False, kw_only=True, omit_defaults=True, rename="camel"
):
    """The controller that copies service accounts to etcd; it has no effect where Kubernetes is the datastore."""


class NamespaceControllerConfig(
    ReconcilerConfig, frozen=True, gc=False, kw_only=True, omit_defaults=True, rename="camel"
):
    """The controller that copies namespaces to etcd; it has no effect where Kubernetes is the datastore."""


class LoadBalancerControllerConfig(Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, rename="camel"):
    """The controller that gives addresses to Services of type LoadBalancer."""

    assign_ips: Literal["AllServices", "RequestedServicesOnly"] = field(name="assignIPs", default="AllServices")
    """Which Services get an address: all of them, or those that ask for one in an annotation."""


class MigrationControllerConfig(Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, rename="camel"):
    """The controller that renames policies of the form that Calico before v3.32 stored."""

    policy_name_migrator: Switch = field(name="enabled", default="Enabled")
    """Whether it works."""


class ControllersConfig(Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, rename="camel"):
    """Each controller's configuration; one that is left out is off."""

    node: NodeControllerConfig | None = None
    """Clears up after nodes that are gone, and collects leaked addresses."""
    policy: PolicyControllerConfig | None = None
    """Copies policies of Kubernetes to etcd."""
    workload_endpoint: WorkloadEndpointControllerConfig | None = None
    """Copies labels of pods to etcd."""
    service_account: ServiceAccountControllerConfig | None = None
    """Copies service accounts to etcd."""
    namespace: NamespaceControllerConfig | None = None
    """Copies namespaces to etcd."""
    load_balancer: LoadBalancerControllerConfig | None = None
    """Gives addresses to Services of type LoadBalancer."""
    migration: MigrationControllerConfig | None = field(name="policyMigration", default=None)
    """Renames policies of the form that Calico before v3.32 stored."""


class KubeControllersConfigurationSpec(Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, rename="camel"):
    """Calico KubeControllersConfigurationSpec."""

    log_severity_screen: LogSeverity | None = None
    """The least severity of what is logged; Info if it is left out."""
    health_checks: Switch = "Enabled"
    """Whether the controllers answer health probes."""
    etcd_v3_compaction_period: str | None = None
    """How often etcd is compacted, as a Go duration; 10m if it is left out, 0s never. It has no effect where Kubernetes
    is the datastore."""
    prometheus_metrics_port: int | None = None
    """The TCP port of the metrics, 0 to 65535; 9094 if it is left out, 0 for none."""
    controllers: ControllersConfig
    """Each controller's configuration."""
    debug_profile_port: int | None = None
    """The TCP port of profiles of CPU and memory, 0 to 65535; none if it is left out."""


class KubeControllersConfigurationStatus(
    Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, rename="camel"
):
    """Calico KubeControllersConfigurationStatus: what is in force; nobody but the controllers writes it."""

    running_config: KubeControllersConfigurationSpec | None = None
    """The configuration in force: this object, and above it the controllers' environment."""
    environment_vars: dict[str, str] = {}
    """The variables of the controllers' environment that had a say."""


class KubeControllersConfiguration(
    Resource, frozen=True, gc=False, kw_only=True, rename="camel", tag_field="kind", tag="KubeControllersConfiguration"
):
    """How the controllers work."""

    spec: KubeControllersConfigurationSpec
    api_version: Literal["projectcalico.org/v3"] = "projectcalico.org/v3"
    status: KubeControllersConfigurationStatus | UnsetType = UNSET


_NOT_RE2 = re.compile(r"\(\?(=|!|<=|<!|>|\()|\\[1-9]")
"""What Python's regular expressions have and RE2's haven't: looking around, and back."""


def problems(configuration: KubeControllersConfiguration) -> Iterator[Problem]:
    """Calico's validation of KubeControllersConfiguration."""
    spec = configuration.spec
    yield from metadata_problems(configuration.metadata)
    if configuration.metadata.name != "default":
        yield Problem("metadata.name", configuration.metadata.name, "only one object is read", "name it default")
    for name, port in (
        ("prometheusMetricsPort", spec.prometheus_metrics_port), ("debugProfilePort", spec.debug_profile_port),
    ):  # fmt: skip
        if port is not None and not 0 <= port <= 65535:
            yield Problem(f"spec.{name}", port, "is no port", "write 0 to 65535")
    yield from duration_problems("spec.etcdV3CompactionPeriod", spec.etcd_v3_compaction_period)
    yield from _controllers_problems("spec.controllers", spec.controllers)


def _controllers_problems(where: str, controllers: ControllersConfig) -> Iterator[Problem]:
    for name, controller in (
        ("node", controllers.node),
        ("policy", controllers.policy),
        ("workloadEndpoint", controllers.workload_endpoint),
        ("serviceAccount", controllers.service_account),
        ("namespace", controllers.namespace),
    ):
        if controller is not None:
            yield from duration_problems(f"{where}.{name}.reconcilerPeriod", controller.reconciler_period)
    if (node := controllers.node) is not None:
        yield from duration_problems(f"{where}.node.leakGracePeriod", node.leak_grace_period)
        for index, template in enumerate(node.host_endpoint.templates if node.host_endpoint else ()):
            yield from _template_problems(f"{where}.node.hostEndpoint.templates[{index}]", template)


def _template_problems(where: str, template: HostEndpointTemplate) -> Iterator[Problem]:
    if template.generate_name:
        yield from dns_name_problems(f"{where}.generateName", template.generate_name)
    if not template.interface_cidrs and not template.interface_pattern:
        reason = "is empty, and so is interfacePattern: no interface is meant"
        yield Problem(f"{where}.interfaceCIDRs", [], reason, "set one of them, or both")
    for index, text in enumerate(template.interface_cidrs):
        try:
            network_or_address(text)
        except ValueError:
            remedy = "write 192.0.2.0/24 or 192.0.2.1"
            yield Problem(f"{where}.interfaceCIDRs[{index}]", text, "is neither an address nor a CIDR", remedy)
    yield from _pattern_problems(f"{where}.interfacePattern", template.interface_pattern)
    yield from label_problems(f"{where}.labels", template.labels)
    yield from selector_problems(f"{where}.nodeSelector", template.node_selector)


def _pattern_problems(where: str, text: str) -> Iterator[Problem]:
    remedy = "write it in RE2's syntax: ^eth[0-9]+$"
    try:
        re.compile(text)
    except re.error as error:
        yield Problem(where, text, f"is no regular expression: {error}", remedy)
        return
    if _NOT_RE2.search(text):
        yield Problem(where, text, "looks around or back, which RE2 can't", remedy)


_TEMPLATES = "controllers.node.hostEndpoint.templates"


def _constraints(configuration: str) -> Iterator[Constraint]:
    templates = f"{configuration}.{_TEMPLATES}"
    for port in ("prometheusMetricsPort", "debugProfilePort"):
        yield Constraint(path=f"{configuration}.{port}", minimum=0, maximum=65535)
    yield Constraint(path=f"{templates}[].generateName", max_length=MOST_CHARACTERS)
    yield Constraint(path=f"{templates}[].interfaceCIDRs", list_type="set")
    yield Constraint(path=f"{templates}[].nodeSelector", max_length=SELECTOR)
    for name in ("node", "policy", "workloadEndpoint", "serviceAccount", "namespace"):
        yield Constraint(path=f"{configuration}.controllers.{name}.reconcilerPeriod", pattern=DURATION)
    for path in ("controllers.node.leakGracePeriod", "etcdV3CompactionPeriod"):
        yield Constraint(path=f"{configuration}.{path}", pattern=DURATION)


KIND = Kind(
    name="KubeControllersConfiguration", group="projectcalico.org", version="v3",
    plural="kubecontrollersconfigurations", type=KubeControllersConfiguration, problems=problems,
    short_names=("kcc", "kccs", "kubecontrollersconfig", "kubecontrollersconfigs"),
    definition=Definition(
        short_names=("kcc", "kccs"),
        constraints=(*_constraints("spec"), *_constraints("status.runningConfig")),
        validations=(
            only_default("KubeControllersConfiguration"),
            Validation(
                path=f"spec.{_TEMPLATES}[]",
                rule="(has(self.interfaceCIDRs) && size(self.interfaceCIDRs) > 0) ||"
                " (has(self.interfacePattern) && self.interfacePattern != '')",
                message="no interface is meant: set interfaceCIDRs, interfacePattern, or both",
            ),
        ),
        status=True,
    ),
)  # fmt: skip
