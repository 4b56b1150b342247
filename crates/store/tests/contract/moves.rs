//! The state of a file into an etcd: everything that lives, nothing else, and revisions only go on.

use admit::Expect;
use base::Revision;
use store::{TransferError, transfer};

use crate::lab::{Lab, commit, delete, put, rows};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_moves_into_an_etcd_whole() {
    let Some(etcd) = Lab::etcd().await else { return };
    let file = Lab::sqlite();
    let mut last = Revision::ZERO;
    for count in 0..500_u128 {
        let value = "v".repeat(usize::try_from(count).unwrap() * 40);
        last = commit(&file.engine, count, put(&format!("n-{count}"), Expect::Absent, &value)).await;
    }
    let gone = commit(&file.engine, 500, delete("n-499", Expect::At(last))).await;
    let moved = transfer(&*file.engine, &*etcd.engine).await.unwrap();
    assert_eq!((moved.revision, moved.counts.get("things")), (gone, Some(&499)));
    let plain = |rows: Vec<store::Row>| rows.into_iter().map(|row| (row.place, row.value)).collect::<Vec<_>>();
    let after = rows(&etcd.engine).await;
    assert!(after.iter().all(|row| gone < row.revision));
    assert_eq!(plain(after), plain(rows(&file.engine).await));
    assert!(gone < commit(&etcd.engine, 501, put("later", Expect::Absent, "v")).await);
    let again = transfer(&*file.engine, &*etcd.engine).await;
    assert!(matches!(again, Err(TransferError::NotEmpty)), "{again:?}");
}
