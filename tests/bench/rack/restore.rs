//! All three are lost with their disks, and a bundle is left.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::ensure;
use e2e::{Options, Rack};

use super::{Figures, HOST, seconds};

/// Objects that were written as a load are there again.
const OBJECT: &str = "-n bench get configmap many-04999 -o name";

pub fn measure(rack: &mut Rack) -> anyhow::Result<Figures> {
    let keep = PathBuf::from("/var/tmp/evenkeel-e2e").join(Options::lane("bench-bundle-", HOST).name);
    std::fs::create_dir_all(&keep)?;
    let figures = restored(rack, &keep);
    std::fs::remove_dir_all(&keep)?;
    figures
}

fn restored(rack: &mut Rack, keep: &Path) -> anyhow::Result<Figures> {
    std::fs::write(keep.join("passphrase"), "a long enough passphrase\n")?;
    let sealed = format!("--file={0}/bundle --passphrase-file={0}/passphrase", keep.display());
    let data = |rack: &Rack| format!("--data-dir={}", rack.servers[0].data.display());
    rack.servers[0].evenkeel()?.ok(&format!("backup {sealed} {}", data(rack)))?;
    for server in &mut rack.servers {
        server.power_cut()?;
    }
    let words = format!("restore {sealed} {}", data(rack));
    let first = &mut rack.servers[0];
    first.wipe()?;
    first.host.power_on()?;
    let begin = Instant::now();
    first.evenkeel()?.ok(&words)?;
    first.start_server()?;
    let serving = begin.elapsed();
    ensure!(first.kubectl().ok(OBJECT).is_ok(), "the bundle lacks something");
    let join = rack.servers[0].joining()?;
    for server in &mut rack.servers[1..] {
        server.start_blank(join.clone())?;
    }
    rack.serves(0, 3)?;
    rack.servers[2].kubectl().ok(OBJECT)?;
    Ok(vec![("restore_from_nothing_s", seconds(serving)), ("restore_all_joined_s", seconds(begin.elapsed()))])
}
