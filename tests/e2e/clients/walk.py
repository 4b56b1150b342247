"""The Python client walks every kind and verb that its discovery finds: SAMPLES NAMESPACE.

Every cell asserts state. Prints what failed, then one line that counts the cells that held.
"""
import os
import sys
import tempfile
import time

import yaml
from kubernetes import client, config, dynamic
from kubernetes.client.exceptions import ApiException
from kubernetes.dynamic.resource import Resource

SAMPLES, NAMESPACE = sys.argv[1:3]
# Numbers of this walk's objects.
FIRST, SECOND = 41, 42
# How long controllers may go on writing to what was just made, and finalizers may hold what was deleted.
RACE_SECONDS = 20

MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
JSON_PATCH = "application/json-patch+json"


def samples(tag):
    with open(SAMPLES) as file:
        return yaml.safe_load(file.read().replace("$TAG", str(tag)).replace("$NAMESPACE", NAMESPACE))


def sample(resource, tag):
    bodies = samples(tag)
    body = bodies.get("%s/%s" % (resource.group, resource.kind), bodies.get(resource.kind))
    assert body is not None, "samples.yaml has no %s" % resource.kind
    body = dict(body, apiVersion=resource.group_version, kind=resource.kind)
    body["metadata"] = dict(body.get("metadata", {}))
    body["metadata"].setdefault("name", "walk-%d" % tag)
    return body


def refused(code, call, *arguments, **named):
    """The call must be answered with this code."""
    try:
        call(*arguments, **named)
    except ApiException as error:
        assert error.status == code, "answered %d, not %d: %s" % (error.status, code, error.body)
        return
    raise AssertionError("it was not refused with %d" % code)


def options(**more):
    """The body of a deletion; with one, the server does not look at query parameters."""
    return dict(more, kind="DeleteOptions", apiVersion="v1", gracePeriodSeconds=0)


def eventually(what, probe):
    deadline = time.monotonic() + RACE_SECONDS
    while True:
        try:
            return probe()
        except (ApiException, AssertionError) as error:
            if time.monotonic() > deadline:
                raise AssertionError("%s: not within %d s: %s" % (what, RACE_SECONDS, error))
            time.sleep(0.1)


class Walk:
    def __init__(self, resource):
        self.resource = resource
        self.at = {"namespace": NAMESPACE} if resource.namespaced else {}
        self.cells = 0

    def get(self, name=None):
        return self.resource.get(name=name or self.name, **self.at)

    def absent(self, name=None):
        refused(404, self.get, name)

    def whole(self):
        verbs = set(self.resource.verbs)
        if self.resource.kind == "Binding":
            return
        if "create" not in verbs:
            assert self.resource.get(**self.at).items is not None
            self.cells += 1
            return
        if "get" not in verbs:
            return self.review()
        body = sample(self.resource, FIRST)
        self.name = body["metadata"]["name"]
        before = self.resource.get(limit=1, **self.at).metadata.resourceVersion
        self.create(body, before)
        self.read()
        self.replace()
        self.patch()
        self.subresources()
        if "deletecollection" in verbs:
            self.delete_collection()
        self.delete()
        self.watched(before)

    def review(self):
        question = sample(self.resource, FIRST)
        del question["metadata"]["name"]
        answer = self.resource.create(body=question, **self.at)
        assert answer.status is not None, answer
        self.cells += 1

    def create(self, body, before):
        self.resource.create(body=body, query_params=[("dryRun", "All")], **self.at)
        self.absent()
        made = self.resource.create(body=body, **self.at)
        assert made.metadata.uid and int(made.metadata.resourceVersion) > int(before), made
        refused(409, self.resource.create, body=body, **self.at)
        assert self.get().metadata.uid == made.metadata.uid
        self.cells += 3

    def read(self):
        one = self.get()
        assert one.kind == self.resource.kind, one
        chosen = self.resource.get(field_selector="metadata.name=" + self.name, **self.at)
        assert [item.metadata.uid for item in chosen.items] == [one.metadata.uid], chosen
        none = self.resource.get(label_selector="walk=nobody", **self.at)
        assert not none.items, none
        self.cells += 3

    def replace(self):
        def once():
            stale = self.get().to_dict()
            stale["metadata"].setdefault("labels", {})["walk"] = "replaced"
            self.resource.replace(body=stale, query_params=[("dryRun", "All")], **self.at)
            assert "walk" not in (self.get().to_dict()["metadata"].get("labels") or {}), "a dry run left its label"
            self.resource.replace(body=stale, **self.at)
            return stale

        stale = eventually("a replacement of the newest version", once)
        found = self.get()
        assert found.metadata.labels.walk == "replaced", found
        assert int(found.metadata.resourceVersion) > int(stale["metadata"]["resourceVersion"])
        refused(409, self.resource.replace, body=stale, **self.at)
        self.cells += 3

    def patched(self, word, patch, content_type):
        def call(**more):
            self.resource.patch(name=self.name, body=patch, content_type=content_type, **self.at, **more)

        call(query_params=[("dryRun", "All")])
        assert word not in self.annotations(), "a dry run left " + word
        call()
        assert self.annotations()[word] == "1"
        self.cells += 2

    def annotations(self):
        return self.get().to_dict()["metadata"].get("annotations") or {}

    def patch(self):
        def annotation(word):
            return {"metadata": {"annotations": {word: "1"}}}

        self.patched("merge", annotation("merge"), MERGE)
        if self.resource.kind == "Gadget":
            refused(415, self.resource.patch, name=self.name, body=annotation("no"), content_type=STRATEGIC, **self.at)
        else:
            self.patched("strategic", annotation("strategic"), STRATEGIC)
        add = [{"op": "add", "path": "/metadata/annotations/json", "value": "1"}]
        self.patched("json", add, JSON_PATCH)
        applied = dict(annotation("apply"), apiVersion=self.resource.group_version, kind=self.resource.kind)
        self.resource.server_side_apply(name=self.name, body=applied, field_manager="walk", **self.at)
        assert self.annotations()["apply"] == "1"
        managers = [entry.manager for entry in self.get().metadata.managedFields]
        assert "walk" in managers, managers
        self.cells += 2

    def subresources(self):
        subresources = self.resource.subresources
        if "status" in subresources:
            part = subresources["status"]
            assert part.get(name=self.name, **self.at).metadata.name == self.name

            def write_back():
                before = self.get().metadata.resourceVersion
                part.replace(name=self.name, body=part.get(name=self.name, **self.at).to_dict(), **self.at)
                after = self.get().metadata.resourceVersion
                assert after == before, "writing back %s made %s" % (before, after)

            eventually("writing back the status", write_back)
            self.cells += 2
        if "scale" in subresources:
            part = subresources["scale"]
            before = part.get(name=self.name, **self.at)
            assert before.kind == "Scale", before
            three = {"spec": {"replicas": 3}}
            dry = part.patch(
                name=self.name, body=three, content_type=MERGE, query_params=[("dryRun", "All")], **self.at
            )
            assert dry.spec.replicas == 3, dry
            assert part.get(name=self.name, **self.at).to_dict()["spec"] == before.to_dict()["spec"]
            self.cells += 2

    def delete_collection(self):
        second = sample(self.resource, SECOND)
        second["metadata"]["labels"] = {"walk": "second"}
        name = second["metadata"]["name"]
        self.resource.create(body=second, **self.at)
        self.resource.delete(label_selector="walk=second", body=options(dryRun=["All"]), **self.at)
        assert self.get(name).metadata.deletionTimestamp is None, "a dry run deleted it"
        self.resource.delete(label_selector="walk=second", body=options(), **self.at)
        eventually("the chosen object goes", lambda: self.absent(name))
        assert self.get().metadata.deletionTimestamp is None, "an object of other labels went too"
        self.cells += 2

    def delete(self):
        self.resource.delete(name=self.name, body=options(dryRun=["All"]), **self.at)
        refused(409, self.resource.delete, name=self.name, body=options(preconditions={"uid": "other"}), **self.at)
        assert self.get().metadata.deletionTimestamp is None, "a dry run or a wrong precondition deleted it"
        self.resource.delete(name=self.name, body=options(), **self.at)
        eventually("the object goes", self.absent)
        self.cells += 3

    def watched(self, before):
        events = self.resource.watch(
            resource_version=before, field_selector="metadata.name=" + self.name, timeout=30, **self.at
        )
        seen = []
        for event in events:
            seen.append(event["type"])
            if event["type"] == "DELETED":
                break
        changes = seen.count("MODIFIED")
        assert seen[0] == "ADDED" and seen[-1] == "DELETED" and changes >= 4 and changes == len(seen) - 2, seen
        self.cells += 1


def main():
    api = config.new_client_from_config()
    with tempfile.TemporaryDirectory() as folder:
        # Its own place remembers the discovery of any server that ever had this address.
        found = dynamic.DynamicClient(api, cache_file=os.path.join(folder, "discovery")).resources.search()
    resources = [resource for resource in found if type(resource) is Resource]
    assert len(resources) > 50, "discovery names only %d resources" % len(resources)
    assert "Gadget" in [found.kind for found in resources], "no custom resource"
    typed = client.CoreV1Api(api).read_namespace(NAMESPACE)
    assert typed.status.phase == "Active", typed
    cells, failures = 1, []
    for resource in resources:
        walk = Walk(resource)
        try:
            walk.whole()
        except Exception as error:  # Every failure is told, with its kind.
            said = getattr(error, "body", error)
            failures.append("%s/%s: %s: %s" % (resource.group_version, resource.name, type(error).__name__, said))
        cells += walk.cells
    for failure in failures:
        print("failed:", failure, file=sys.stderr)
    print("%d cells held over %d resources" % (cells, len(resources)))
    sys.exit(1 if failures else 0)


main()
