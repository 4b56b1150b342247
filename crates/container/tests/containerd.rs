//! A real containerd, from settings to a container that ran: needs root, containerd, runc and a static busybox; says what
//! it skips otherwise. Everything lies in one temporary folder and is gone afterwards.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use container::archive::Expected;
use container::child::Status;
use container::containerd::{self, Config, Containerd, find_program};
use container::cri::{Events, v1};
use container::{Cri, registries};
use futures::StreamExt;
use sha2::{Digest, Sha256};
use tokio::sync::oneshot;

const IMAGE: &str = "evenkeel.local/test:1";

/// A containerd of the test's own; ended even where the test fails.
struct Lab {
    folder: tempfile::TempDir,
    config: Config,
}

impl Lab {
    fn new(name: &str) -> Option<Lab> {
        let root = fs::read_to_string("/proc/self/status").unwrap().contains("\nUid:\t0\t0");
        if !root || find_program("containerd").is_none() || find_program("runc").is_none() || busybox().is_none() {
            eprintln!("skipped: needs root, containerd, runc and busybox");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let config = Config::new(folder.path(), &format!("ek-test-{name}-{}", std::process::id()), IMAGE);
        Some(Lab { folder, config })
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let config = self.config.clone();
        let stop = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(containerd::stop(&config))
        });
        stop.join().unwrap().unwrap();
        // Files that must not outlive the process are removed with the folder.
        let _ = self.folder.path();
    }
}

fn busybox() -> Option<PathBuf> {
    find_program("busybox")
}

/// One file of a tar archive, with its padding.
fn tar_entry(name: &str, mode: u32, body: &[u8]) -> Vec<u8> {
    let mut header = [0u8; 512];
    header[..name.len()].copy_from_slice(name.as_bytes());
    let numbers = [(100, format!("{mode:07o}")), (108, "0000000".into()), (116, "0000000".into())];
    for (at, text) in numbers {
        header[at..at + 7].copy_from_slice(text.as_bytes());
    }
    header[124..135].copy_from_slice(format!("{:011o}", body.len()).as_bytes());
    header[136..147].copy_from_slice(b"00000000000");
    header[148..156].copy_from_slice(b"        ");
    header[156] = b'0';
    header[257..263].copy_from_slice(b"ustar\0");
    header[263..265].copy_from_slice(b"00");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    let mut entry = header.to_vec();
    entry.extend_from_slice(body);
    entry.resize(entry.len().next_multiple_of(512), 0);
    entry
}

/// An image archive (`manifest.json` form) whose only program is busybox.
fn write_image(path: &Path) {
    let program = fs::read(busybox().unwrap()).unwrap();
    let mut layer = tar_entry("busybox", 0o755, &program);
    layer.extend_from_slice(&[0; 1024]);
    let layer_id = hex(&Sha256::digest(&layer));
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let config = format!(
        r#"{{"architecture":"{architecture}","os":"linux","config":{{"Entrypoint":["/busybox","sleep","3600"]}},"rootfs":{{"type":"layers","diff_ids":["sha256:{layer_id}"]}}}}"#
    );
    let manifest = format!(r#"[{{"Config":"config.json","RepoTags":["{IMAGE}"],"Layers":["layer.tar"]}}]"#);
    let mut archive = tar_entry("layer.tar", 0o644, &layer);
    archive.extend(tar_entry("config.json", 0o644, config.as_bytes()));
    archive.extend(tar_entry("manifest.json", 0o644, manifest.as_bytes()));
    archive.extend_from_slice(&[0; 1024]);
    fs::write(path, archive).unwrap();
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn pid_of(status: &Status) -> Option<u32> {
    match status {
        Status::Running { pid, .. } => Some(*pid),
        Status::Down { .. } => None,
    }
}

/// A sandbox on the host's network: this crate has no network of its own.
fn sandbox(logs: &Path) -> v1::PodSandboxConfig {
    let metadata = v1::PodSandboxMetadata { name: "p".into(), uid: "u".into(), namespace: "n".into(), attempt: 0 };
    let namespaces = v1::NamespaceOption { network: v1::NamespaceMode::Node.into(), ..Default::default() };
    let security = v1::LinuxSandboxSecurityContext { namespace_options: Some(namespaces), ..Default::default() };
    v1::PodSandboxConfig {
        metadata: Some(metadata),
        log_directory: logs.display().to_string(),
        linux: Some(v1::LinuxPodSandboxConfig { security_context: Some(security), ..Default::default() }),
        ..Default::default()
    }
}

fn sleeper() -> v1::ContainerConfig {
    v1::ContainerConfig {
        metadata: Some(v1::ContainerMetadata { name: "c".into(), attempt: 0 }),
        image: Some(v1::ImageSpec { image: IMAGE.into(), ..Default::default() }),
        command: ["/busybox", "sh", "-c", "echo ready; exec /busybox sleep 3600"].map(String::from).to_vec(),
        log_path: "c.log".into(),
        ..Default::default()
    }
}

async fn expect_event(events: &mut Events, id: &str, kind: v1::ContainerEventType) {
    let seek = async {
        while let Some(event) = events.next().await {
            let event = event.unwrap();
            if event.container_id == id && event.container_event_type() == kind {
                return;
            }
        }
        panic!("the stream ended without {kind:?}");
    };
    tokio::time::timeout(Duration::from_secs(10), seek).await.unwrap();
}

async fn state_of(cri: &Cri, id: &str) -> v1::ContainerState {
    cri.container_status(id, false).await.unwrap().0.state()
}

#[tokio::test]
async fn containers_outlive_agent_and_containerd() {
    let Some(mut lab) = Lab::new("life") else { return };
    let registry_file = lab.folder.path().join("registries.yaml");
    fs::write(&registry_file, "mirrors: {a.local: {endpoint: [\"http://127.0.0.1:1\"]}}").unwrap();
    registries::apply(&registry_file, &mut lab.config.settings).unwrap();
    let first = Containerd::start(lab.config.clone()).await.unwrap();
    let cri = first.cri();
    let pid = pid_of(&first.status().borrow()).unwrap();

    // An image file is imported once.
    let images = lab.folder.path().join("images");
    fs::create_dir(&images).unwrap();
    write_image(&images.join("test.tar"));
    fs::write(images.join("broken.tar"), "not an archive").unwrap();
    let importer = first.importer().unwrap();
    let stamps = lab.folder.path().join("stamps.json");
    let outcome = importer.import_folder(&images, &stamps, &cri, &Expected::default()).await.unwrap();
    assert_eq!((outcome.imported.as_slice(), outcome.failed.len()), ([IMAGE.to_owned()].as_slice(), 1));
    fs::remove_file(images.join("broken.tar")).unwrap();
    let again = importer.import_folder(&images, &stamps, &cri, &Expected::default()).await.unwrap();
    assert_eq!((again.imported.len(), again.unchanged), (0, 1));
    importer.pin(IMAGE).await.unwrap();

    // A container runs, and says so.
    let mut events = cri.events().await.unwrap();
    let logs = lab.folder.path().join("logs");
    let config = sandbox(&logs);
    let pod = cri.run_sandbox(config.clone(), "").await.unwrap();
    let id = cri.create_container(&pod, sleeper(), config).await.unwrap();
    cri.start_container(&id).await.unwrap();
    expect_event(&mut events, &id, v1::ContainerEventType::ContainerStartedEvent).await;
    let echo = ["/busybox".to_owned(), "echo".into(), "hello".into()];
    let output = cri.exec_sync(&id, &echo, Duration::from_secs(10)).await.unwrap();
    assert_eq!((output.stdout.as_slice(), output.exit_code), (b"hello\n".as_slice(), 0));
    assert!(cri.exec(&id, &echo, Default::default()).await.is_err(), "a stream without any direction is refused");

    // A second agent adopts the same process.
    drop(first);
    let second = Containerd::start(lab.config.clone()).await.unwrap();
    let mut status = second.status();
    assert_eq!(*status.borrow(), Status::Running { pid, adopted: true, restarts: 0 });
    // Without the record, the socket tells who serves it.
    fs::remove_file(lab.folder.path().join("containerd.json")).unwrap();
    drop(second);
    let third = Containerd::start(lab.config.clone()).await.unwrap();
    assert_eq!(pid_of(&third.status().borrow()), Some(pid));
    status = third.status();

    // containerd dies: it comes back, the container never left.
    let (drain, drained) = oneshot::channel::<()>();
    let run = tokio::spawn(third.run(async move { drop(drained.await) }));
    let victim = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(victim, rustix::process::Signal::KILL).unwrap();
    let back = status.wait_for(|status| pid_of(status).is_some_and(|new| new != pid));
    tokio::time::timeout(Duration::from_secs(20), back).await.unwrap().unwrap();
    assert_eq!(state_of(&cri, &id).await, v1::ContainerState::ContainerRunning);
    drain.send(()).unwrap();
    run.await.unwrap();

    let mut events = cri.events().await.unwrap();
    cri.stop_container(&id, Duration::ZERO).await.unwrap();
    expect_event(&mut events, &id, v1::ContainerEventType::ContainerStoppedEvent).await;
    assert_eq!(state_of(&cri, &id).await, v1::ContainerState::ContainerExited);
    for _ in 0..2 {
        cri.stop_sandbox(&pod).await.unwrap();
        cri.remove_sandbox(&pod).await.unwrap();
    }
    assert!(cri.container_status(&id, false).await.unwrap_err().is_not_found());
    assert!(containerd::stop(&lab.config).await.unwrap());
    assert!(!containerd::stop(&lab.config).await.unwrap());
}

#[tokio::test]
async fn what_keeps_containerd_from_starting_is_told() {
    let Some(mut lab) = Lab::new("fail") else { return };
    lab.config.program = PathBuf::from("/bin/false");
    let error = Containerd::start(lab.config.clone()).await.unwrap_err();
    assert!(base::Chain(&error).to_string().contains("version"), "{error}");
    lab.config.settings.state = PathBuf::from("/tmp").join("x".repeat(120));
    let error = Containerd::start(lab.config.clone()).await.unwrap_err();
    assert!(base::Chain(&error).to_string().contains("shorter"), "{error}");
}
