//! A virtual address on a real link, of either family. What needs several servers is tested with real ones.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use api::Key;
use base::Clock;
use net::{Vip, VipStatus, VirtualAddress};
use tokio::sync::watch;
use view::Drain;
use view::fake::FakeApi;

use super::lab::{Lab, ip};

const WAIT: Duration = Duration::from_secs(15);
const LONGER: Duration = Duration::from_secs(5);

struct Wall;

impl Clock for Wall {
    fn now(&self) -> jiff::Timestamp {
        jiff::Timestamp::now()
    }
}

#[test]
fn an_ipv4_address_is_taken_told_and_left() {
    check("vip4", "172.31.0.99");
}

#[test]
fn an_ipv6_address_is_taken_told_and_left() {
    check("vip6", "fd31:0::99");
}

fn check(name: &str, address: &str) {
    let Some(lab) = Lab::new(name) else { return };
    let address: IpAddr = address.parse().unwrap();
    lab.run(async |lab: &Lab| {
        let outside = lab.outside();
        lab.host.listen(9000);
        let at = SocketAddr::new(address, 9000);
        // Somebody has it: they are named, and keep it.
        let own = format!("-n {} addr add {address} dev up0", outside.name);
        ip(&if address.is_ipv6() { format!("{own} nodad") } else { own });
        let (serves, ready) = watch::channel(true);
        let lease = Key::new("kube-system", "evenkeel-virtual-address");
        let config = VirtualAddress { address: address.into(), lease, identity: "one".to_owned() };
        let vip = Vip::new(config, &FakeApi::new().client(), Arc::new(Wall), ready);
        let mut status = vip.status();
        let drain = Drain::new();
        let running = tokio::spawn(vip.run(drain.clone()));
        until(&mut status, |status| matches!(status, VipStatus::Blocked { by } if by.len() == 17)).await;
        assert!(!lab.addresses().contains(&address.to_string()));
        ip(&format!("-n {} addr del {} dev up0", outside.name, ipnet::IpNet::from(address)));
        until(&mut status, |status| *status == VipStatus::Here { contested_by: None }).await;
        // The kernel listens for who asks for an IPv6 address a moment after it has it, and a lost question is repeated after
        // a second.
        let since = Instant::now();
        while let Err(error) = outside.dial(at) {
            assert!(since.elapsed() < WAIT, "{error}");
        }
        // Renewals keep it there for longer than one lasts.
        let end = Instant::now() + LONGER;
        while Instant::now() < end {
            outside.dial(at).unwrap();
        }
        // A server that does not serve gives it up, and takes it again.
        serves.send_replace(false);
        until(&mut status, |status| matches!(status, VipStatus::Elsewhere { .. })).await;
        assert!(!lab.addresses().contains(&address.to_string()));
        serves.send_replace(true);
        until(&mut status, |status| matches!(status, VipStatus::Here { .. })).await;
        drain.cancel();
        tokio::time::timeout(WAIT, running).await.expect("drained in time").unwrap();
        assert!(!lab.addresses().contains(&address.to_string()));
    });
}

async fn until(status: &mut watch::Receiver<VipStatus>, level: impl FnMut(&VipStatus) -> bool) {
    let reached = tokio::time::timeout(WAIT, status.wait_for(level)).await.is_ok();
    assert!(reached, "{:?}", status.borrow());
}
