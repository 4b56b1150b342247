//! Questions and answers about one small cluster.

use api::{Object, Stream};
use k8s_openapi::Resource;
use serde_json::{Value, json};

use super::*;

fn stream<T: Resource>(snapshot: &mut Snapshot, indexes: &[Index], objects: &[Value]) {
    let mut stream = Stream::with_indexes(indexes);
    stream.synced = true;
    for object in objects {
        stream.put(Arc::new(Object::parse(serde_json::to_vec(object).unwrap().into()).unwrap()));
    }
    snapshot.put_stream(api::snapshot::gvr_of::<T>(), stream);
}

fn cluster() -> Snapshot {
    let mut snapshot = Snapshot::default();
    let meta = |name: &str| json!({ "name": name, "namespace": "default" });
    let port = json!([{ "name": "http", "port": 80, "protocol": "TCP" }]);
    let services = [
        json!({ "metadata": meta("web"), "spec": { "clusterIP": "10.43.0.20", "clusterIPs": ["10.43.0.20", "fd00::20"], "ports": port } }),
        json!({ "metadata": meta("db"), "spec": { "clusterIP": "None", "ports": port } }),
        json!({ "metadata": meta("idle"), "spec": { "clusterIP": "None" } }),
        json!({ "metadata": meta("far"), "spec": { "type": "ExternalName", "externalName": "example.org" } }),
    ];
    let slice = json!({
        "metadata": { "name": "db-1", "namespace": "default", "labels": { "kubernetes.io/service-name": "db" } },
        "addressType": "IPv4", "ports": [{ "name": "http", "port": 5432, "protocol": "TCP" }],
        "endpoints": [
            { "addresses": ["10.42.0.5"], "hostname": "db-0", "conditions": { "ready": true } },
            { "addresses": ["10.42.0.6"], "conditions": {} },
            { "addresses": ["10.42.0.7"], "hostname": "db-2", "conditions": { "ready": false } },
        ],
    });
    stream::<Service>(&mut snapshot, &[ADDRESSES], &services);
    stream::<EndpointSlice>(&mut snapshot, &[SERVICE, ADDRESSES], &[slice]);
    snapshot
}

fn ask(name: &str, kind: RecordType) -> String {
    let zone = Zone::new("cluster.local", &["10.42.0.0/16".parse().unwrap(), "10.43.0.0/16".parse().unwrap()]);
    let name = Name::from_ascii(name).unwrap();
    match zone.answer(&cluster(), &name, kind) {
        Answer::Records { answers, additionals } => {
            let text: Vec<String> = answers.iter().chain(&additionals).map(|record| record.data.to_string()).collect();
            text.join(" ")
        }
        Answer::Alias { target, .. } => format!("-> {target}"),
        other => format!("{other:?}"),
    }
}

#[test]
fn the_zone_answers_as_specified() {
    use RecordType as T;
    let cases = [
        ("web.default.svc.cluster.local.", T::A, "10.43.0.20"),
        ("WEB.Default.svc.Cluster.Local.", T::A, "10.43.0.20"),
        ("web.default.svc.cluster.local.", T::AAAA, "fd00::20"),
        ("web.default.svc.cluster.local.", T::MX, "NoData"),
        ("absent.default.svc.cluster.local.", T::A, "NoName"),
        ("web.default.svc.cluster.local.default.svc.cluster.local.", T::A, "NoName"),
        ("db.default.svc.cluster.local.", T::A, "10.42.0.5 10.42.0.6"),
        ("db.default.svc.cluster.local.", T::AAAA, "NoData"),
        ("db-0.db.default.svc.cluster.local.", T::A, "10.42.0.5"),
        ("10-42-0-6.db.default.svc.cluster.local.", T::A, "10.42.0.6"),
        ("db-2.db.default.svc.cluster.local.", T::A, "NoName"),
        ("idle.default.svc.cluster.local.", T::A, "NoName"),
        ("far.default.svc.cluster.local.", T::A, "-> example.org."),
        ("far.default.svc.cluster.local.", T::CNAME, "example.org."),
        (
            "_http._tcp.web.default.svc.cluster.local.",
            T::SRV,
            "0 100 80 web.default.svc.cluster.local. 10.43.0.20 fd00::20",
        ),
        (
            "_http._tcp.db.default.svc.cluster.local.",
            T::SRV,
            "0 100 5432 db-0.db.default.svc.cluster.local. 0 100 5432 10-42-0-6.db.default.svc.cluster.local. 10.42.0.5 10.42.0.6",
        ),
        ("_http._tcp.web.default.svc.cluster.local.", T::A, "NoData"),
        ("_http._udp.web.default.svc.cluster.local.", T::SRV, "NoName"),
        ("_tcp.web.default.svc.cluster.local.", T::A, "NoData"),
        ("default.svc.cluster.local.", T::A, "NoData"),
        ("absent.svc.cluster.local.", T::A, "NoName"),
        ("svc.cluster.local.", T::A, "NoData"),
        ("cluster.local.", T::A, "NoData"),
        ("10-42-0-99.default.pod.cluster.local.", T::A, "10.42.0.99"),
        ("absent.pod.cluster.local.", T::A, "NoName"),
        ("nonsense.default.pod.cluster.local.", T::A, "NoName"),
        ("dns-version.cluster.local.", T::TXT, "1.1.0"),
        ("20.0.43.10.in-addr.arpa.", T::PTR, "web.default.svc.cluster.local."),
        ("5.0.42.10.in-addr.arpa.", T::PTR, "db-0.db.default.svc.cluster.local."),
        ("99.0.42.10.in-addr.arpa.", T::PTR, "NoName"),
        ("1.1.1.1.in-addr.arpa.", T::PTR, "Foreign"),
        ("example.org.", T::A, "Foreign"),
        ("local.", T::A, "Foreign"),
    ];
    for (name, kind, wanted) in cases {
        assert_eq!(ask(name, kind), wanted, "{name} {kind}");
    }
}

#[test]
fn before_the_first_list_nothing_is_denied() {
    let zone = Zone::new("cluster.local.", &[]);
    let mut snapshot = Snapshot::default();
    snapshot.put_stream(api::snapshot::gvr_of::<Service>(), Stream::with_indexes(&[ADDRESSES]));
    let name = Name::from_ascii("web.default.svc.cluster.local.").unwrap();
    assert_eq!(zone.answer(&snapshot, &name, RecordType::A), Answer::NotReady);
}
