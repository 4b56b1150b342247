//! `evenkeel images` and `evenkeel ps`: what the container runtime of this machine holds.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use base::Clock;
use container::Cri;

use super::args::{ImagesArgs, ImagesCommand, PsArgs};
use super::output::{age, bytes, table};
use crate::layout::Layout;
use crate::wire::{SystemClock, containerd_config, cri_socket};

pub async fn run(args: ImagesArgs) -> Result<()> {
    let layout = args.common.layout();
    let cri = Cri::connect(cri_socket(&layout, args.container_runtime_endpoint.as_deref()));
    match args.command {
        ImagesCommand::Ls => list(&cri).await,
        ImagesCommand::Pull { images } => {
            for image in images {
                let id = cri.pull_image(&image, "", None, None).await.with_context(|| format!("pull {image}"))?;
                println!("{image} {id}");
            }
            Ok(())
        }
        ImagesCommand::Import { files } => {
            let importer = importer(&layout)?;
            for file in files {
                let names = importer.import(&file, &cri).await.with_context(|| format!("import {}", file.display()))?;
                println!("{}: {}", file.display(), names.join(" "));
            }
            Ok(())
        }
        ImagesCommand::Rm { images } => {
            for image in images {
                cri.remove_image(&image).await.with_context(|| format!("remove {image}"))?;
            }
            Ok(())
        }
    }
}

pub async fn ps(args: PsArgs) -> Result<()> {
    let layout = args.common.layout();
    let cri = Cri::connect(cri_socket(&layout, args.container_runtime_endpoint.as_deref()));
    let containers = cri.list_containers(None).await.context(ASK)?;
    let images = cri.list_images().await.context(ASK)?;
    let names: BTreeMap<String, String> =
        images.into_iter().filter_map(|image| Some((image.id, image.repo_tags.into_iter().next()?))).collect();
    let now = SystemClock.now().as_second();
    let rows = containers.into_iter().filter(|one| args.all || one.state == RUNNING).map(|one| {
        let label = |name: &str| one.labels.get(name).cloned().unwrap_or_default();
        // The runtime keeps what the container was made from, which may be an id.
        let image = one.image.as_ref().map(|image| image.image.clone()).unwrap_or_default();
        let image = names.get(&image).cloned().unwrap_or(image);
        vec![
            label("io.kubernetes.pod.namespace"),
            label("io.kubernetes.pod.name"),
            label("io.kubernetes.container.name"),
            STATES.get(usize::try_from(one.state).unwrap_or(3)).copied().unwrap_or("unknown").to_owned(),
            age(now - one.created_at / 1_000_000_000),
            one.id.chars().take(13).collect(),
            image,
        ]
    });
    let mut rows: Vec<Vec<String>> = rows.collect();
    rows.sort();
    print!("{}", table(&["NAMESPACE", "POD", "CONTAINER", "STATE", "AGE", "ID", "IMAGE"], &rows));
    Ok(())
}

const ASK: &str = "ask the container runtime; does evenkeel run on this machine?";

/// CRI's container states, by number.
const STATES: [&str; 4] = ["created", "running", "exited", "unknown"];
const RUNNING: i32 = 1;

async fn list(cri: &Cri) -> Result<()> {
    let images = cri.list_images().await.context(ASK)?;
    let mut rows = BTreeMap::new();
    for image in images {
        let id: String = image.id.trim_start_matches("sha256:").chars().take(12).collect();
        let names = if image.repo_tags.is_empty() { image.repo_digests.clone() } else { image.repo_tags.clone() };
        for name in names {
            rows.insert(name.clone(), vec![name, id.clone(), bytes(image.size)]);
        }
    }
    print!("{}", table(&["IMAGE", "ID", "SIZE"], &rows.into_values().collect::<Vec<_>>()));
    Ok(())
}

fn importer(layout: &Layout) -> Result<container::images::Importer> {
    let Some(tool) = container::containerd::find_program("ctr") else {
        bail!("there is no ctr on this machine; it comes with containerd");
    };
    let config = containerd_config(layout);
    Ok(container::images::Importer::new(tool, config.socket(), &config.settings.snapshotter))
}
