//! etcd's messages and clients, generated from `proto/etcd.proto`.
#![allow(clippy::all, clippy::pedantic, missing_docs, reason = "generated code")]

tonic::include_proto!("etcdserverpb");
