//! Who forgets the history, of several servers that each want to: one per period, and never more than the asker may.
//!
//! A key of ours tells when it was done last, in etcd's own revisions: newer than what one wants forgotten means that
//! another did it within the period. Otherwise whoever writes that key first does it. A server that lost its place all
//! the same, being away for longer than the history reaches, loads the state anew.

use bytes::Bytes;
use tonic::Code;

use super::{Etcd, Op, read_error, wire};
use crate::engine::EngineError;

impl Etcd {
    /// Forgets the history up to etcd's `revision`, or leaves it to whoever did so lately.
    pub(super) async fn compact_once(&self, revision: i64) -> Result<(), EngineError> {
        let key = Bytes::from(self.keys.compacted());
        let read = wire::RangeRequest { key: key.clone(), keys_only: true, ..Default::default() };
        let answer = self.kv().range(read).await.map_err(read_error)?.into_inner();
        let last = answer.kvs.first().map_or(0, |kv| kv.mod_revision);
        if revision < last || !self.claims(key, last, revision).await? {
            return Ok(());
        }
        match self.kv().compact(wire::CompactionRequest { revision, physical: false }).await {
            Ok(_) => Ok(()),
            // An administrator, or the care for a full etcd, went further.
            Err(status) if status.code() == Code::OutOfRange => Ok(()),
            Err(status) => Err(read_error(status)),
        }
    }

    /// Writes the key, unless another did since. True where it is ours to do.
    async fn claims(&self, key: Bytes, last: i64, revision: i64) -> Result<bool, EngineError> {
        let compare = wire::Compare {
            result: wire::compare::CompareResult::Equal.into(),
            target: wire::compare::CompareTarget::Mod.into(),
            key: key.clone(),
            target_union: Some(wire::compare::TargetUnion::ModRevision(last)),
        };
        let put = Op::RequestPut(wire::PutRequest { key, value: revision.to_string().into(), lease: 0 });
        let success = vec![wire::RequestOp { request: Some(put) }];
        let request = wire::TxnRequest { compare: vec![compare], success, failure: Vec::new() };
        match self.kv().txn(request).await {
            Ok(answer) => Ok(answer.into_inner().succeeded),
            // A full etcd takes no key. Forgetting is what it needs most, and harms nobody when it is done twice.
            Err(status) if status.code() == Code::ResourceExhausted => Ok(true),
            Err(status) => Err(read_error(status)),
        }
    }
}
