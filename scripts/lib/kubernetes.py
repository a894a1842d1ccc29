#!/usr/bin/env python3
"""Holds deploy/kubernetes against the definitions of what it is written in, without a cluster.

  scripts/lib/kubernetes.py      some seconds

Each overlay is built by kustomize. What it gives is validated, strictly, against the schemas of Kubernetes and against the
definitions of KEDA and of the Prometheus operator. Then it is seen that what is named is there: ports, labels, secrets,
metrics; that the service knows every setting that it is given, and answers the probes; and that a mistake of each kind is found.
"""

import copy
import os
import pathlib
import re
import shutil
import subprocess
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import harness  # noqa: E402
from harness import Failure, say  # noqa: E402

# What the checks are written in comes with the validator.
PYTHON = pathlib.Path(harness.tool("kubernetes-validate")).parent / "python"
if pathlib.Path(sys.prefix).resolve() != PYTHON.parent.parent.resolve():
    os.execv(PYTHON, [str(PYTHON), *sys.argv])

import jsonschema  # noqa: E402
import kubernetes_validate  # noqa: E402
import yaml  # noqa: E402

import dashboards  # noqa: E402

DEPLOY = harness.ROOT / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
# The oldest and the newest that is promised.
VERSIONS = ("1.30", "1.36")
OURS = {"app.kubernetes.io/name": "boxoffice"}
AUTOSCALERS = {"cpu": "HorizontalPodAutoscaler", "line": "ScaledObject"}


def expect(condition, what):
    if not condition:
        raise Failure(what)


def build(directory):
    done = subprocess.run([harness.tool("kustomize"), "build", directory], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          check=False)
    expect(done.returncode == 0, f"kustomize build {directory}: {done.stderr}")
    expect(not done.stderr, f"kustomize build {directory} warns: {done.stderr}")
    return [one for one in yaml.safe_load_all(done.stdout) if one]


# ---------------------------------------------------------------- schemas

def closed(schema):
    """A schema of an API server, which drops what it does not know, as one that refuses it."""
    if isinstance(schema, list):
        return [closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    result = {key: closed(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and "additionalProperties" not in schema \
            and not schema.get("x-kubernetes-preserve-unknown-fields"):
        result["additionalProperties"] = False
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    return result


def definitions():
    """(apiVersion, kind) of each resource that is defined outside of Kubernetes, and its schema."""
    found = {}
    for path in sorted(pathlib.Path(harness.tool("kubernetes-crds")).glob("*.yaml")):
        for definition in yaml.safe_load_all(path.read_text()):
            spec = definition["spec"]
            for version in spec["versions"]:
                schema = closed(version["schema"]["openAPIV3Schema"])
                # Its type is "object", which says nothing.
                schema["properties"]["metadata"] = {"type": "object"}
                found[f"{spec['group']}/{version['name']}", spec["names"]["kind"]] = schema
    return found


def mistakes(one, defined):
    """What the schemas have against a resource."""
    key = one["apiVersion"], one["kind"]
    if key in defined:
        checker = jsonschema.Draft202012Validator(defined[key])
        return [f"{'/'.join(map(str, error.absolute_path))}: {error.message}" for error in checker.iter_errors(one)]
    found = []
    for version in VERSIONS:
        try:
            kubernetes_validate.validate(one, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            found.append(f"{version}: {error}")
    return found


def check_schemas(name, resources, defined):
    for one in resources:
        found = mistakes(one, defined)
        expect(not found, f"{name}: {one['kind']} {one['metadata']['name']}: {found}")
    say(f"ok: {name}: {len(resources)} resources, against Kubernetes {' and '.join(VERSIONS)}")


def check_that_it_can_fail(resources, defined):
    """A name that is wrong, and a value of another type, in each of them."""
    for one in resources:
        if one["kind"] in ("ConfigMap", "Namespace"):
            continue
        wrong = copy.deepcopy(one)
        wrong["spec"]["replicaz"] = 3
        expect(mistakes(wrong, defined), f"a wrong name in {one['kind']} is not found")
        wrong = copy.deepcopy(one)
        wrong["spec"] = "text"
        expect(mistakes(wrong, defined), f"a wrong type in {one['kind']} is not found")
    deep = {"Deployment": lambda spec: spec["template"]["spec"]["containers"][0]["readinessProbe"],
            "ScaledObject": lambda spec: spec["triggers"][0], "PodMonitor": lambda spec: spec["podMetricsEndpoints"][0],
            "HorizontalPodAutoscaler": lambda spec: spec["behavior"]["scaleUp"]}
    for one in resources:
        if one["kind"] in deep:
            wrong = copy.deepcopy(one)
            deep[one["kind"]](wrong["spec"])["nonesuch"] = 1
            expect(mistakes(wrong, defined), f"a wrong name deep in {one['kind']} is not found")


# ---------------------------------------------------------------- what is named is there

def of_kind(resources, kind):
    return [one for one in resources if one["kind"] == kind]


def only(resources, kind):
    found = of_kind(resources, kind)
    expect(len(found) == 1, f"{len(found)} resources of the kind {kind}, and not one")
    return found[0]



def check_names(name, resources):
    deployment = only(resources, "Deployment")
    spec = deployment["spec"]
    expect("replicas" not in spec, f"{name}: the Deployment has replicas, which the autoscaler has as well")
    pod = spec["template"]["spec"]
    labels = spec["template"]["metadata"]["labels"]
    expect(OURS.items() <= labels.items() and spec["selector"]["matchLabels"] == OURS, f"{name}: the labels of the pods are {labels}")
    container = pod["containers"][0]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    settings = only(resources, "ConfigMap")
    expect(container["envFrom"] == [{"configMapRef": {"name": settings["metadata"]["name"]}}], f"{name}: the settings are not those of the ConfigMap")
    listens = {"http": "BOXOFFICE_SERVER__LISTEN", "admin": "BOXOFFICE_ADMIN__LISTEN"}
    for port, key in listens.items():
        expect(settings["data"][key] == f"0.0.0.0:{ports[port]}", f"{name}: {key} is not the port {port}")
    for service in of_kind(resources, "Service"):
        expect(service["spec"]["selector"] == OURS, f"{name}: Service {service['metadata']['name']} selects others")
        public = service["metadata"]["name"] == "boxoffice"
        expect([port["targetPort"] for port in service["spec"]["ports"]] == ["http" if public else "admin"],
               f"{name}: Service {service['metadata']['name']} leads to another port")
    expect(only(resources, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"] == OURS, f"{name}: the budget is of others")
    for spread in pod["topologySpreadConstraints"]:
        expect(spread["labelSelector"]["matchLabels"] == OURS, f"{name}: others are spread")
    # Of the secret, exactly what settings name.
    mount = next(one for one in container["volumeMounts"] if one["name"] == "secrets")["mountPath"]
    secret = next(one for one in pod["volumes"] if one["name"] == "secrets")["secret"]
    files = {f"{mount}/{item['path']}" for item in secret["items"]}
    named = {value for key, value in settings["data"].items() if key.endswith("_FILE")}
    expect(files == named, f"{name}: secrets {files} are mounted, and settings name {named}")
    made = re.search(r"^names=\((.*)\)", (DEPLOY / "secrets").read_text(), re.MULTILINE)[1].split()
    expect({item["key"] for item in secret["items"]} <= set(made), f"{name}: deploy/secrets does not make all of {secret['items']}")
    leaked = [key for key in settings["data"] if re.search(r"(PASSWORD|TOKEN|_KEY)$", key)]
    expect(not leaked, f"{name}: the ConfigMap has a secret: {leaked}")
    user = re.search(r"^USER (\d+):(\d+)", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE)
    security = pod["securityContext"]
    expect([str(security["runAsUser"]), str(security["runAsGroup"])] == list(user.groups()) and security["runAsNonRoot"],
           f"{name}: the image has another user than the pod")
    drain_s = int(settings["data"]["BOXOFFICE_SERVER__DRAIN_TIMEOUT_MS"]) / 1000
    sleep, seconds = container["lifecycle"]["preStop"]["exec"]["command"]
    expect(sleep == "sleep" and int(seconds) + drain_s + 5 < pod["terminationGracePeriodSeconds"],
           f"{name}: it is killed before it has ended in good order")
    scaled = [one for kind in AUTOSCALERS.values() for one in of_kind(resources, kind)]
    expect([one["kind"] for one in scaled] == [AUTOSCALERS[name]], f"{name}: autoscalers {[one['kind'] for one in scaled]}")
    target = scaled[0]["spec"]["scaleTargetRef"]
    expect(target == {"apiVersion": deployment["apiVersion"], "kind": "Deployment", "name": deployment["metadata"]["name"]},
           f"{name}: the autoscaler is of {target}")
    expect(all(one["metadata"].get("namespace") == "boxoffice" for one in resources if one["kind"] != "Namespace"),
           f"{name}: something is in another namespace")
    check_network(name, only(resources, "NetworkPolicy")["spec"], set(ports))
    return settings["data"], container


def check_network(name, policy, ports):
    expect(policy["podSelector"]["matchLabels"] == OURS and sorted(policy["policyTypes"]) == ["Egress", "Ingress"],
           f"{name}: the network policy is of others")
    rules = [*policy["ingress"], *policy["egress"]]
    expect(all(rule.get("from") or rule.get("to") for rule in rules) and all(rule.get("ports") for rule in rules),
           f"{name}: a rule of the network policy is for everybody, or for every port")
    inward = [port["port"] for rule in policy["ingress"] for port in rule["ports"]]
    expect(set(inward) == ports and len(inward) == len(ports), f"{name}: ports {inward} are open to somebody")
    outward = {port["port"] for rule in policy["egress"] for port in rule["ports"]}
    expect(outward == {53, 3306, 6379, 9092, 443}, f"{name}: it may reach the ports {outward}")
    peers = [peer for rule in policy["egress"] for peer in rule["to"]]
    own = [peer for peer in peers if peer.get("podSelector", {}).get("matchLabels") == OURS]
    expect(not own, f"{name}: engines are called boxoffice: a label was put over theirs")


def check_settings(name, settings, container, work):
    """The service knows every setting, and answers where it is probed."""
    secrets = work / "secrets"
    secrets.mkdir(exist_ok=True)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("BOXOFFICE_")}
    for key, value in settings.items():
        if key.endswith("_FILE"):
            value = str(secrets / pathlib.Path(value).name)
            pathlib.Path(value).write_text("0123456789abcdef" * 4)
        environment[key] = value
    program = harness.binary("boxoffice")

    def check(**more):
        return subprocess.run([program, "config", "check"], env={**environment, **more}, cwd=work, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, check=False)
    done = check()
    expect(done.returncode == 0, f"{name}: boxoffice config check: {done.stdout}")
    expect(check(BOXOFFICE_STORE__MYSQL__HOSTT="x").returncode != 0, "a setting that does not exist is not found")
    server = harness.Server(work, label=f"probed-{name}", settings={"admin.listen": f"127.0.0.1:{harness.free_port()}"})
    paths = {probe: container[probe]["httpGet"]["path"] for probe in ("startupProbe", "readinessProbe", "livenessProbe")}
    server.port = int(server.env["BOXOFFICE_ADMIN__LISTEN"].rpartition(":")[2])
    for probe, path in paths.items():
        expect(container[probe]["httpGet"]["port"] == "admin", f"{name}: {probe} asks another port")
        server.call("GET", path, expect=200)
    server.stop()
    say(f"ok: {name}: boxoffice knows {len(settings)} settings, and answers {', '.join(sorted(set(paths.values())))}")


def check_queries(resources, work):
    """What KEDA asks of Prometheus: names that the service has, in the language of Prometheus."""
    names = dashboards.known_metrics()
    queries = [trigger["metadata"]["query"] for one in of_kind(resources, "ScaledObject") for trigger in one["spec"]["triggers"]
               if trigger["type"] == "prometheus"]
    expect(queries, "the line is asked for nothing")
    for query in queries:
        for used in re.findall(r"\b(?:boxoffice|http|process)_\w+", query):
            expect(used in names, f"the service has no metric {used}: {query}")
    rules = work / "queries.yml"
    rules.write_text(yaml.safe_dump({"groups": [{"name": "keda", "rules": [
        {"record": f"keda:query:{number}", "expr": query} for number, query in enumerate(queries)]}]}))
    done = subprocess.run([harness.program("promtool", "prometheus"), "check", "rules", rules], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, check=False)
    expect(done.returncode == 0, f"promtool has something against the queries of KEDA: {done.stdout}")
    # Thresholds are texts, which no schema reads.
    for one in of_kind(resources, "ScaledObject"):
        for trigger in one["spec"]["triggers"]:
            number = trigger["metadata"].get("threshold") or trigger["metadata"]["value"]
            expect(re.fullmatch(r"[1-9]\d*", number), f"a threshold is {number!r}")
    say(f"ok: {len(queries)} queries of KEDA")


def main():
    work = harness.make_temp_dir("boxoffice-kubernetes-")
    defined = definitions()
    for name in sorted(path.name for path in (KUBERNETES / "overlays").iterdir()):
        resources = build(KUBERNETES / "overlays" / name)
        check_schemas(name, resources, defined)
        check_that_it_can_fail(resources, defined)
        settings, container = check_names(name, resources)
        check_settings(name, settings, container, work)
        if name == "line":
            check_queries(resources, work)
    # As an overlay of somebody's own would have it, with the component.
    tree = work / "tree"
    shutil.copytree(KUBERNETES, tree)
    own = tree / "overlays" / "own"
    own.mkdir()
    (own / "kustomization.yaml").write_text("resources: [../line]\ncomponents: [../../components/pod-monitor]\nnamespace: boxoffice\n")
    resources = build(own)
    monitor = only(resources, "PodMonitor")
    check_schemas("line with pod-monitor", resources, defined)
    check_that_it_can_fail([monitor], defined)
    ports = [port["name"] for port in only(resources, "Deployment")["spec"]["template"]["spec"]["containers"][0]["ports"]]
    expect(monitor["spec"]["selector"]["matchLabels"] == OURS and monitor["spec"]["podMetricsEndpoints"][0]["port"] in ports,
           "the PodMonitor is of others")
    say("deploy/kubernetes is in order")
    return 0


if __name__ == "__main__":
    harness.run_main(main)
