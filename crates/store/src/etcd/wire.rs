//! etcd's messages and clients, generated from `proto/etcd.proto`.
#![allow(clippy::all, clippy::allow_attributes_without_reason, reason = "generated code")]

tonic::include_proto!("etcdserverpb");
