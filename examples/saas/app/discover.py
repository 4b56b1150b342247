"""Writes what Prometheus scrapes: watches the pods of a namespace through the Kubernetes API, as its service account."""
import json
import os
import ssl
import sys
import time
import urllib.request

ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
PORT = "prometheus.io/port"
# The server ends a watch after this; a dead connection is noticed a little later.
WATCH_SECONDS = 240

namespace, path = sys.argv[1:]
server = "https://%s:%s" % (os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"])
trust = ssl.create_default_context(cafile=ACCOUNT + "/ca.crt")


def ask(query, timeout):
    with open(ACCOUNT + "/token") as file:  # Rotated: read it for every request.
        headers = {"Authorization": "Bearer " + file.read().strip(), "Accept": "application/json"}
    url = "%s/api/v1/namespaces/%s/pods?%s" % (server, namespace, query)
    return urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=timeout, context=trust)


def write(pods):
    groups = []
    for name, pod in sorted(pods.items()):
        port = pod["metadata"].get("annotations", {}).get(PORT)
        address = pod.get("status", {}).get("podIP")
        if port and address:
            groups.append({"targets": ["%s:%s" % (address, port)], "labels": {"pod": name}})
    with open(path + ".new", "w") as file:
        json.dump(groups, file)
    os.rename(path + ".new", path)


def follow():
    with ask("", 30) as answer:
        listed = json.load(answer)
    pods = {pod["metadata"]["name"]: pod for pod in listed["items"]}
    version = listed["metadata"]["resourceVersion"]
    write(pods)
    query = "watch=1&resourceVersion=%s&timeoutSeconds=%d" % (version, WATCH_SECONDS)
    with ask(query, WATCH_SECONDS + 30) as events:
        for line in events:
            event = json.loads(line)
            if event["type"] == "ERROR":
                return
            pod = event["object"]
            if event["type"] == "DELETED":
                pods.pop(pod["metadata"]["name"], None)
            else:
                pods[pod["metadata"]["name"]] = pod
            write(pods)


while True:
    try:
        follow()
    except OSError as error:
        print("discovery:", error, flush=True)
        time.sleep(1)
