"""The image and the Kubernetes files: sound each by itself, and in agreement with one another and with the service."""

import functools
import importlib
import re
import shutil
import subprocess
import sysconfig
import tomllib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]
import msgspec
import pytest
import yaml  # type: ignore[import-untyped]

from adserver.config_files import read_config

Resource = dict[str, Any]

ROOT = Path(__file__).parents[2]
K8S = ROOT / "k8s"
OVERLAYS = ["small", "production"]
# Not Kubernetes' own, so there is no schema to hold them against.
CUSTOM_KINDS = {("monitoring.coreos.com/v1", kind) for kind in ("ServiceMonitor", "PrometheusRule")}
# What pages and readers call, and nothing else.
DELIVERY_PATHS = {"/ads", "/render", "/i", "/m", "/v", "/c", "/assets", "/loader.js", "/loader.css", "/methodology"}

VARIABLE = re.compile(r"\bADSERVER_[A-Z_]*[A-Z]\b")
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
# Instructions without comments, each on one line.
INSTRUCTIONS = re.sub(r"\\\n\s*", "", re.sub(r"(?m)^\s*#.*\n", "", DOCKERFILE)).splitlines()


def kustomizations() -> list[Path]:
    return sorted(K8S.rglob("kustomization.yaml"))


def manifests() -> list[Path]:
    return sorted(path for path in K8S.rglob("*.yaml") if path.name != "kustomization.yaml")


def read_resources(text: str) -> list[Resource]:
    return [resource for resource in yaml.safe_load_all(text) if resource is not None]


def validate(resource: Resource) -> None:
    """Raise unless *resource* is what the newest Kubernetes known here takes, without a field it does not know."""
    if (resource["apiVersion"], resource["kind"]) in CUSTOM_KINDS:
        return
    kubernetes_validate.validate(resource, kubernetes_validate.latest_version(), strict=True)


def kustomize(directory: Path) -> list[Resource]:
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed, so the overlays are checked unbuilt only")
    built = subprocess.run(["kubectl", "kustomize", directory], capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    return read_resources(built.stdout)


@functools.cache
def base() -> tuple[Resource, ...]:
    """The base's files as they are, with the generated ConfigMap in its place."""
    found = [resource for path in sorted(K8S.glob("base/*.yaml")) for resource in read_resources(path.read_text())]
    lines = (K8S / "base" / "adserver.env").read_text().splitlines()
    data = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    env = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "adserver-env"}, "data": data}
    return (*(one for one in found if one["kind"] != "Kustomization"), env)


@functools.cache
def overlay(name: str) -> tuple[Resource, ...]:
    return tuple(kustomize(K8S / "overlays" / name))


@pytest.fixture(params=["base", *OVERLAYS])
def resources(request: pytest.FixtureRequest) -> tuple[Resource, ...]:
    """All objects of the base as written, and of each overlay as kubectl builds it."""
    return base() if request.param == "base" else overlay(request.param)


def of_kind(resources: tuple[Resource, ...], kind: str) -> list[Resource]:
    return [resource for resource in resources if resource["kind"] == kind]


def named(resources: tuple[Resource, ...], kind: str, name: str) -> Resource:
    """The one *kind* called *name*, with or without a generated hash behind it."""
    (found,) = [
        one for one in of_kind(resources, kind) if re.fullmatch(rf"{name}(-[a-z0-9]{{10}})?", one["metadata"]["name"])
    ]
    return found


def stateful_set(resources: tuple[Resource, ...]) -> Resource:
    return named(resources, "StatefulSet", "adserver")


def pod(resources: tuple[Resource, ...]) -> Resource:
    spec: Resource = stateful_set(resources)["spec"]["template"]["spec"]
    return spec


def service_container(resources: tuple[Resource, ...]) -> Resource:
    (container,) = pod(resources)["containers"]
    assert isinstance(container, dict)
    return container


def port_names(resources: tuple[Resource, ...]) -> dict[str, int]:
    return {port["name"]: port["containerPort"] for port in service_container(resources)["ports"]}


def environment(resources: tuple[Resource, ...]) -> dict[str, Any]:
    """The variables of the service's container; a reference to a Secret stays a reference."""
    variables: dict[str, Any] = dict(named(resources, "ConfigMap", "adserver-env")["data"])
    for variable in service_container(resources).get("env") or []:
        variables[variable["name"]] = variable.get("value", variable.get("valueFrom"))
    return variables


def image_environment() -> dict[str, str]:
    """The variables that the last stage of the Dockerfile sets."""
    last = INSTRUCTIONS[max(n for n, line in enumerate(INSTRUCTIONS) if line.startswith("FROM ")) :]
    pairs = (pair for line in last if line.startswith("ENV ") for pair in line.removeprefix("ENV ").split())
    return dict(pair.split("=", 1) for pair in pairs)


def service_variables() -> set[str]:
    settings = importlib.import_module("adserver.settings").Settings
    return {f"ADSERVER_{field.name.upper()}" for field in msgspec.structs.fields(settings)}


# The image


def test_the_dockerfile_passes_hadolint() -> None:
    """
    The Dockerfile has nothing that hadolint, with every rule on, would change.
    """
    hadolint = Path(sysconfig.get_path("scripts")) / "hadolint"
    checked = subprocess.run([hadolint, ROOT / "Dockerfile"], capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stdout) == (0, "")


def test_the_image_names_its_base_by_an_exact_tag() -> None:
    """
    Both stages stand on one Python 3.13 slim image with a Debian release in its tag, and a digest can be passed in.
    """
    assert [line for line in INSTRUCTIONS if line.startswith("ARG ")] == ["ARG BASE=python:3.13-slim-trixie"]
    assert [line.split()[1] for line in INSTRUCTIONS if line.startswith("FROM ")] == ["${BASE}", "${BASE}"]


def test_the_image_installs_only_what_the_lock_has_a_hash_for() -> None:
    """
    Nothing is downloaded into the image that the lock does not name byte for byte.
    """
    installs = [
        step for line in INSTRUCTIONS for step in line.split("&&") if re.search(r"\bpip\b.* (install|wheel) ", step)
    ]
    assert len(installs) == 3
    assert all("--require-hashes" in step or "--no-index" in step for step in installs)


def test_the_build_tools_that_leave_the_image_are_those_of_the_lock() -> None:
    """
    What the image uninstalls is the build backend and what the lock says only the build backend needs.
    """
    wanted: dict[str, list[str]] = {}
    for entry in re.findall(r"(?m)^[a-z][^\n]*\n(?:[ ].*\n?)+", (ROOT / "requirements" / "run.txt").read_text()):
        users = entry.split("# via", 1)[1].replace("#", " ").split()
        wanted[entry.split("==")[0]] = users
    only_build = {"hatchling"}
    while more := {name for name, users in wanted.items() if set(users) <= only_build} - only_build:
        only_build |= more

    (line,) = [line for line in INSTRUCTIONS if "uninstall --yes hatchling" in line]
    (step,) = [step for step in line.split("&&") if "uninstall" in step]

    assert set(step.split("--yes")[1].split()) == only_build


def test_the_image_runs_as_a_numbered_user_that_is_not_root() -> None:
    """
    The last word on the user is a number other than 0, which Kubernetes can hold against runAsNonRoot.
    """
    assert [line for line in INSTRUCTIONS if line.startswith("USER ")][-1] == "USER 10001:10001"
    assert pod(base())["securityContext"]["runAsUser"] == 10001


def test_signals_reach_the_service_itself() -> None:
    """
    The entry point is the program and not a shell around it, and it is stopped with SIGTERM.
    """
    assert 'ENTRYPOINT ["adserver"]' in INSTRUCTIONS
    assert 'CMD ["serve"]' in INSTRUCTIONS
    assert "STOPSIGNAL SIGTERM" in INSTRUCTIONS
    assert service_container(base())["args"] == ["serve"]


def test_the_image_exposes_the_ports_it_listens_on() -> None:
    """
    The ports in the image's environment, its EXPOSE line and the pod's container ports are the same two.
    """
    variables = image_environment()
    ports = {int(variables["ADSERVER_PORT"]), int(variables["ADSERVER_OPS_PORT"])}
    (exposed,) = [line for line in INSTRUCTIONS if line.startswith("EXPOSE ")]
    assert {int(port) for port in exposed.split()[1:]} == ports
    assert set(port_names(base()).values()) == ports


def test_the_data_directory_is_a_volume() -> None:
    """
    The ledger is never written into a container's own layer.
    """
    assert f'VOLUME ["{image_environment()["ADSERVER_DATA_DIR"]}"]' in INSTRUCTIONS


def test_the_health_check_asks_whether_the_service_is_alive() -> None:
    """
    Docker asks for life and not for readiness: a restart mends no full disk.
    """
    (check,) = [line for line in INSTRUCTIONS if line.lstrip().startswith("HEALTHCHECK ")]
    assert "/healthz" in check
    assert "/readyz" not in check


def copied_paths() -> list[str]:
    """What the Dockerfile takes from the build context."""
    copies = [line.split()[1:] for line in INSTRUCTIONS if line.startswith("COPY ") and "--from=" not in line]
    return [source.rstrip("/") for words in copies for source in words[:-1]]


@pytest.mark.parametrize("path", copied_paths())
def test_what_the_image_copies_is_there_and_let_through(path: str) -> None:
    """
    Every file the build needs exists and is not kept out by .dockerignore, which lets nothing else in.
    """
    rules = (ROOT / ".dockerignore").read_text().splitlines()
    parts = PurePosixPath(path).parts
    assert (ROOT / path).exists()
    assert "*" in rules
    for depth in range(1, len(parts) + 1):
        prefix = "/".join(parts[:depth])
        assert f"!{prefix}" in rules or f"!{prefix}/" in rules


# Each Kubernetes file


@pytest.mark.parametrize("path", manifests(), ids=lambda path: str(path.relative_to(K8S)))
def test_every_manifest_is_valid(path: Path) -> None:
    """
    Each document says what it is and has only fields that the newest Kubernetes knows.
    """
    found = read_resources(path.read_text())
    assert found
    for resource in found:
        validate(resource)


@pytest.mark.parametrize("name", OVERLAYS)
def test_every_overlay_builds_into_valid_objects(name: str) -> None:
    """
    What `kubectl apply -k` would send is valid, patches included.
    """
    built = overlay(name)
    assert {"StatefulSet", "Service", "Ingress", "NetworkPolicy", "ConfigMap"} <= {one["kind"] for one in built}
    for resource in built:
        validate(resource)


def named_files(kustomization: Resource) -> Iterator[str]:
    yield from kustomization.get("resources", [])
    yield from kustomization.get("components", [])
    for generator in kustomization.get("configMapGenerator", []):
        yield from generator.get("envs", [])
        yield from generator.get("files", [])


@pytest.mark.parametrize("path", kustomizations(), ids=lambda path: path.parent.name)
def test_every_kustomization_names_files_that_exist(path: Path) -> None:
    """
    No overlay refers to a file or a directory that is not in the repository.
    """
    kustomization = yaml.safe_load(path.read_text())
    assert [name for name in named_files(kustomization) if not (path.parent / name).exists()] == []


@pytest.mark.parametrize("path", kustomizations(), ids=lambda path: path.parent.name)
def test_every_patch_has_something_to_change(path: Path) -> None:
    """
    Each patch is aimed at an object of the base, and a patch in the shape of an object names the same one.
    """
    known = {(one["kind"], one["metadata"]["name"]) for one in base()}
    for patch in yaml.safe_load(path.read_text()).get("patches", []):
        target = (patch["target"]["kind"], patch["target"]["name"])
        assert target in known
        body = yaml.safe_load(patch["patch"])
        if isinstance(body, dict):
            assert (body["kind"], body["metadata"]["name"]) == target


# The objects together


def test_probes_ask_ports_that_the_container_has(resources: tuple[Resource, ...]) -> None:
    """
    Life is asked where readers ask, readiness where operations ask.
    """
    container = service_container(resources)
    asked = {probe: container[probe]["httpGet"] for probe in ("startupProbe", "livenessProbe", "readinessProbe")}
    assert asked == {
        "startupProbe": {"path": "/healthz", "port": "http"},
        "livenessProbe": {"path": "/healthz", "port": "http"},
        "readinessProbe": {"path": "/readyz", "port": "ops"},
    }
    variables = environment(resources)
    assert port_names(resources) == {
        "http": int(variables["ADSERVER_PORT"]),
        "ops": int(variables["ADSERVER_OPS_PORT"]),
    }


def test_services_and_policies_select_the_pods(resources: tuple[Resource, ...]) -> None:
    """
    Everything that picks pods by label picks the pods of the StatefulSet.
    """
    labels = stateful_set(resources)["spec"]["template"]["metadata"]["labels"]
    selectors = [service["spec"]["selector"] for service in of_kind(resources, "Service")]
    selectors += [stateful_set(resources)["spec"]["selector"]["matchLabels"]]
    selectors += [one["spec"]["selector"]["matchLabels"] for one in of_kind(resources, "PodDisruptionBudget")]
    selectors += [one["spec"]["podSelector"]["matchLabels"] for one in of_kind(resources, "NetworkPolicy")]
    selectors += [one["labelSelector"]["matchLabels"] for one in pod(resources)["topologySpreadConstraints"]]
    assert len(selectors) == 8
    for selector in selectors:
        assert selector
        assert selector.items() <= labels.items()


def test_services_lead_to_ports_that_the_container_has(resources: tuple[Resource, ...]) -> None:
    """
    No Service and no NetworkPolicy names a port that nobody listens on.
    """
    targets = {port["targetPort"] for service in of_kind(resources, "Service") for port in service["spec"]["ports"]}
    (policy,) = of_kind(resources, "NetworkPolicy")
    targets |= {port["port"] for rule in policy["spec"]["ingress"] for port in rule["ports"]}
    assert targets == set(port_names(resources))


def test_the_stateful_set_has_its_headless_service(resources: tuple[Resource, ...]) -> None:
    """
    The Service that gives the pods their names exists and has no address of its own.
    """
    service = named(resources, "Service", stateful_set(resources)["spec"]["serviceName"])
    assert service["spec"]["clusterIP"] == "None"


def test_only_delivery_is_public() -> None:
    """
    The base's Ingress has TLS and passes the delivery paths; no Ingress leads to the ops port.
    """
    (ingress,) = of_kind(base(), "Ingress")
    (rule,) = ingress["spec"]["rules"]
    assert {path["path"] for path in rule["http"]["paths"]} == DELIVERY_PATHS
    assert ingress["spec"]["tls"][0]["hosts"] == [rule["host"]]


def test_every_ingress_has_tls_and_leads_to_the_http_port(resources: tuple[Resource, ...]) -> None:
    """
    Each host has a certificate, and each path ends at a port of the Service that is not the ops port.
    """
    service_ports = {port["name"] for port in named(resources, "Service", "adserver")["spec"]["ports"]}
    for ingress in of_kind(resources, "Ingress"):
        hosts = {host for tls in ingress["spec"]["tls"] for host in tls["hosts"]}
        assert hosts == {rule["host"] for rule in ingress["spec"]["rules"]}
        for path in (path for rule in ingress["spec"]["rules"] for path in rule["http"]["paths"]):
            assert path["backend"]["service"]["name"] == "adserver"
            assert path["backend"]["service"]["port"]["name"] in service_ports == {"http"}


def test_the_public_host_of_production_is_the_one_in_the_snippets() -> None:
    """
    The URLs in snippets lead to the host that the public Ingress answers for.
    """
    built = overlay("production")
    host = named(built, "Ingress", "adserver")["spec"]["rules"][0]["host"]
    assert environment(built)["ADSERVER_PUBLIC_URL"] == f"https://{host}"


def test_the_monitor_scrapes_the_ops_service_only() -> None:
    """
    The ServiceMonitor's labels fit one Service, and its port is there.
    """
    (monitor,) = of_kind(base(), "ServiceMonitor")
    wanted = monitor["spec"]["selector"]["matchLabels"].items()
    (service,) = [one for one in of_kind(base(), "Service") if wanted <= one["metadata"]["labels"].items()]
    assert service["metadata"]["name"] == "adserver-ops"
    (endpoint,) = monitor["spec"]["endpoints"]
    assert endpoint["path"] == "/metrics"
    assert endpoint["port"] in {port["name"] for port in service["spec"]["ports"]}


def test_the_number_of_pods_has_one_owner(resources: tuple[Resource, ...]) -> None:
    """
    Where an autoscaler sets the number of pods the StatefulSet names none; where there is none, the number is one.
    """
    scalers = of_kind(resources, "HorizontalPodAutoscaler")
    replicas = stateful_set(resources)["spec"].get("replicas")
    if not scalers:
        assert replicas == 1
        return
    (scaler,) = scalers
    assert replicas is None
    assert scaler["spec"]["scaleTargetRef"] == {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "adserver"}
    assert [metric["resource"]["name"] for metric in scaler["spec"]["metrics"]] == ["cpu"]
    assert "cpu" in service_container(resources)["resources"]["requests"]


def test_production_has_three_pods_at_least() -> None:
    """
    With one pod updating and one lost, a third still answers.
    """
    scaler = named(overlay("production"), "HorizontalPodAutoscaler", "adserver")
    assert scaler["spec"]["minReplicas"] == 3


def test_more_than_one_pod_means_one_shared_store(resources: tuple[Resource, ...]) -> None:
    """
    Pods that may be several take the store's URL from a Secret and share their signing keys; a single pod has its own.
    """
    variables = environment(resources)
    if stateful_set(resources)["spec"].get("replicas") == 1:
        assert not variables.keys() & {"ADSERVER_REDIS_URL", "ADSERVER_SECRET_FILE"}
        return
    assert variables["ADSERVER_REDIS_URL"] == {"secretKeyRef": {"name": "adserver-redis", "key": "url"}}
    mounts = {mount["mountPath"]: mount["name"] for mount in service_container(resources)["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pod(resources)["volumes"]}
    assert "secret" in volumes[mounts[variables["ADSERVER_SECRET_FILE"]]]


def test_a_drain_of_nodes_is_never_blocked(resources: tuple[Resource, ...]) -> None:
    """
    One pod at a time may always be moved, also when it is the only one.
    """
    (budget,) = of_kind(resources, "PodDisruptionBudget")
    assert budget["spec"]["maxUnavailable"] == 1
    assert "minAvailable" not in budget["spec"]


def test_a_pod_has_time_to_drain(resources: tuple[Resource, ...]) -> None:
    """
    The wait for routes to change and the service's own grace fit before the kill, which has 5 s to spare and 30 s at
    least.
    """
    sleep_s = service_container(resources)["lifecycle"]["preStop"]["sleep"]["seconds"]
    grace_s = int(environment(resources)["ADSERVER_GRACE_S"])
    limit_s = pod(resources)["terminationGracePeriodSeconds"]
    assert sleep_s >= 5
    assert limit_s >= max(30, sleep_s + grace_s + 5)


def test_the_network_is_closed_but_for_what_is_needed(resources: tuple[Resource, ...]) -> None:
    """
    In: delivery from the ingress controller, operations from monitoring. Out: DNS and the store, each to a named place.
    """
    (policy,) = of_kind(resources, "NetworkPolicy")
    spec = policy["spec"]
    assert set(spec["policyTypes"]) == {"Ingress", "Egress"}
    sources = {
        port["port"]: [peer["namespaceSelector"]["matchLabels"] for peer in rule["from"]]
        for rule in spec["ingress"]
        for port in rule["ports"]
    }
    assert sources == {
        "http": [{"kubernetes.io/metadata.name": "ingress-nginx"}],
        "ops": [{"kubernetes.io/metadata.name": "monitoring"}],
    }
    assert all(rule["to"] and rule["ports"] for rule in spec["egress"])
    ports = {port["port"] for rule in spec["egress"] for port in rule["ports"]}
    if "ADSERVER_REDIS_URL" in environment(resources):
        assert ports in ({53, 6379}, {53, 6380})
    else:
        assert ports == set()


def test_containers_have_no_rights_to_lose(resources: tuple[Resource, ...]) -> None:
    """
    Not root, no capability, no new privilege, the default seccomp profile, a read-only root, a bound on what they use.
    """
    spec = pod(resources)
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in [*spec["initContainers"], *spec["containers"]]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        for amounts in (container["resources"]["requests"], container["resources"]["limits"]):
            assert {"cpu", "memory"} <= amounts.keys()


def test_pods_hold_no_token_of_the_cluster(resources: tuple[Resource, ...]) -> None:
    """
    Neither the account nor the pod mounts credentials for the Kubernetes API.
    """
    (account,) = of_kind(resources, "ServiceAccount")
    assert account["automountServiceAccountToken"] is False
    assert pod(resources)["automountServiceAccountToken"] is False
    assert pod(resources)["serviceAccountName"] == account["metadata"]["name"]


def test_service_links_do_not_overwrite_settings(resources: tuple[Resource, ...]) -> None:
    """
    A Service named adserver would put ADSERVER_PORT=tcp://… into the pod; the pod asks for no such variables.
    """
    assert pod(resources)["enableServiceLinks"] is False


def test_the_ledger_is_on_a_volume_that_outlives_its_pod(resources: tuple[Resource, ...]) -> None:
    """
    The data directory lies inside the claimed volume, which stays when the pod or the StatefulSet goes.
    """
    spec = stateful_set(resources)["spec"]
    (claim,) = spec["volumeClaimTemplates"]
    mounts = {mount["name"]: mount["mountPath"] for mount in service_container(resources)["volumeMounts"]}
    mounted = PurePosixPath(mounts[claim["metadata"]["name"]])
    assert mounted in PurePosixPath(environment(resources)["ADSERVER_DATA_DIR"]).parents
    assert spec["persistentVolumeClaimRetentionPolicy"] == {"whenDeleted": "Retain", "whenScaled": "Retain"}


def test_the_kubelet_leaves_the_private_directory_private(resources: tuple[Resource, ...]) -> None:
    """
    The group gets the volume once, when it is new; a later start does not open the 0700 data directory to it again.
    """
    assert pod(resources)["securityContext"]["fsGroup"] == 10001
    assert pod(resources)["securityContext"]["fsGroupChangePolicy"] == "OnRootMismatch"


def test_what_is_written_is_mounted(resources: tuple[Resource, ...]) -> None:
    """
    On the read-only root file system, /tmp and the volume of the ledger are the places that can be written.
    """
    volumes = {volume["name"]: volume for volume in pod(resources)["volumes"]}
    writable = {
        mount["mountPath"]: mount["name"]
        for mount in service_container(resources)["volumeMounts"]
        if not mount.get("readOnly")
    }
    assert writable.keys() == {"/tmp", "/var/lib/adserver"}
    assert "sizeLimit" in volumes[writable["/tmp"]]["emptyDir"]


@pytest.mark.parametrize("name", OVERLAYS)
def test_every_image_has_a_version(name: str) -> None:
    """
    No container of an overlay runs whatever `latest` happens to be, nor the base's bare name.
    """
    spec = pod(overlay(name))
    images = {container["image"] for container in [*spec["initContainers"], *spec["containers"]]}
    assert len(images) == 1
    assert re.fullmatch(r"[^:]+/adserver(:\d+\.\d+\.\d+|@sha256:[0-9a-f]{64})", images.pop())


def test_no_secret_is_in_the_repository() -> None:
    """
    Secrets are referred to by name; neither an object, a generator nor a setting holds one.
    """
    for path in manifests():
        assert "Secret" not in {resource["kind"] for resource in read_resources(path.read_text())}
    for path in kustomizations():
        assert "secretGenerator" not in yaml.safe_load(path.read_text())
    for path in (path for path in K8S.rglob("*") if path.is_file()):
        assert not re.search(r"rediss?://", path.read_text())


def test_without_a_namespace_object_deleting_an_overlay_spares_the_ledger(resources: tuple[Resource, ...]) -> None:
    """
    `kubectl delete -k` must not take the namespace, and with it the volume claims, away.
    """
    assert of_kind(resources, "Namespace") == []


def built_with(component: str, directory: Path, overlay: str = "small") -> tuple[Resource, ...]:
    """An overlay with one more *component*, as docs/deploy.md describes, built in a copy under *directory*."""
    shutil.copytree(K8S, directory / "k8s")
    path = directory / "k8s" / "overlays" / overlay / "kustomization.yaml"
    kustomization = yaml.safe_load(path.read_text())
    components = [*kustomization.get("components", []), f"../../components/{component}"]
    path.write_text(yaml.safe_dump({**kustomization, "components": components}))
    return tuple(kustomize(path.parent))


def test_the_emptydir_component_replaces_the_claim(tmp_path: Path) -> None:
    """
    The journal moves to the node's disk, within the pod's own limit for it, and no claim is left.
    """
    built = built_with("emptydir", tmp_path)
    for resource in built:
        validate(resource)
    assert "volumeClaimTemplates" not in stateful_set(built)["spec"]
    volumes = {volume["name"]: volume for volume in pod(built)["volumes"]}
    assert volumes["data"] == {"name": "data", "emptyDir": {"sizeLimit": "4Gi"}}
    assert service_container(built)["resources"]["limits"]["ephemeral-storage"] == "5Gi"


def test_the_sign_in_component_brings_the_secret_and_a_way_out(tmp_path: Path) -> None:
    """
    The client's secret is a file that the service is told of, and port 443 is open, but not to neighbours.
    """
    built = built_with("sign-in", tmp_path, "production")
    for resource in built:
        validate(resource)
    mounts = {mount["name"]: mount["mountPath"] for mount in service_container(built)["volumeMounts"]}
    assert environment(built)["ADSERVER_OIDC_CLIENT_SECRET_FILE"] == mounts["sign-in"]
    *_, rule = named(built, "NetworkPolicy", "adserver")["spec"]["egress"]
    assert rule["ports"] == [{"port": 443, "protocol": "TCP"}]
    assert "10.0.0.0/8" in rule["to"][0]["ipBlock"]["except"]


def test_the_console_is_public_where_it_is_asked_for() -> None:
    """
    Production adds the console, its API and the report links to the public host, and nothing of the ops port.
    """
    (rule,) = named(overlay("production"), "Ingress", "adserver")["spec"]["rules"]
    paths = {path["path"] for path in rule["http"]["paths"]}
    assert paths == DELIVERY_PATHS | {"/console", "/api", "/report"}


# The catalog that production mounts


def test_production_mounts_its_catalog_where_the_service_looks() -> None:
    """
    The generated ConfigMap, under its full name, is mounted over the sample, and the service reads the plain files.
    """
    built = overlay("production")
    catalog = named(built, "ConfigMap", "adserver-catalog")
    (volume,) = [volume for volume in pod(built)["volumes"] if "configMap" in volume]
    mounts = {mount["name"]: mount["mountPath"] for mount in service_container(built)["volumeMounts"]}
    assert volume["configMap"]["name"] == catalog["metadata"]["name"]
    assert mounts[volume["name"]] == image_environment()["ADSERVER_CONFIG"]
    assert environment(built)["ADSERVER_CONFIG"] == f"{mounts[volume['name']]}/..data"
    assert catalog["data"].keys() == {path.name for path in K8S.glob("overlays/production/catalog/*")}


def test_the_service_reads_a_catalog_as_the_kubelet_lays_it_out(tmp_path: Path) -> None:
    """
    The production catalog is without a problem, read through the directory link that a ConfigMap's volume has.
    """
    catalog = K8S / "overlays" / "production" / "catalog"
    shutil.copytree(catalog, tmp_path / "..2026_11_22")
    (tmp_path / "..data").symlink_to("..2026_11_22")
    for path in catalog.iterdir():
        (tmp_path / path.name).symlink_to(f"..data/{path.name}")

    assert len(read_config(tmp_path / "..data").document.slots) == 18


def read_catalog_tables(directory: Path) -> dict[str, list[dict[str, Any]]]:
    tables: dict[str, list[dict[str, Any]]] = {}
    for path in sorted(directory.glob("*.toml")):
        for table, entries in tomllib.loads(path.read_text()).items():
            tables.setdefault(table, []).extend(entries if isinstance(entries, list) else [entries])
    return tables


def test_the_production_catalog_is_the_site_s_slots_without_the_sample_s_ads() -> None:
    """
    A new production store knows the slots of the sample, in the same words, and shows none of its made-up advertisers.
    """
    ours = read_catalog_tables(K8S / "overlays" / "production" / "catalog")
    sample = read_catalog_tables(ROOT / "config")
    assert ours.keys() == {"site", "slot"}
    assert {slot["id"] for slot in ours["slot"]} == {slot["id"] for slot in sample["slot"]}
    for table, entries in ours.items():
        known = {field for entry in sample[table] for field in entry}
        assert {field for entry in entries for field in entry} <= known


# The words


def test_every_variable_in_the_deployment_is_a_setting_of_the_service() -> None:
    """
    No file here sets or explains a variable that the service does not read.
    """
    files = [ROOT / "Dockerfile", ROOT / "docs" / "deploy.md", *(path for path in K8S.rglob("*") if path.is_file())]
    used = {variable: path.name for path in files for variable in VARIABLE.findall(path.read_text())}
    assert {variable: used[variable] for variable in used.keys() - service_variables()} == {}


def test_the_deployment_page_names_what_is_there() -> None:
    """
    The paths under k8s/ that the page mentions exist, it shows how to make the Secrets that pods refer to, and the
    public paths it lists are those of the Ingress.
    """
    page = (ROOT / "docs" / "deploy.md").read_text()
    assert [path for path in re.findall(r"k8s/[\w./-]*\w", page) if not (ROOT / path).exists()] == []
    referred = {environment(base())["ADSERVER_REDIS_URL"]["secretKeyRef"]["name"]}
    referred |= {volume["secret"]["secretName"] for volume in pod(base())["volumes"] if "secret" in volume}
    referred |= set(re.findall(r"secretName: ([\w-]+)", (K8S / "components/sign-in/kustomization.yaml").read_text()))
    assert referred == set(re.findall(r"create secret generic ([\w-]+)", page))
    (public,) = re.findall(r"what pages and readers call: (.*?)\.\s", page)
    assert {path.rstrip("/") for path in re.findall(r"`([^`]+)`", public)} == DELIVERY_PATHS
