//! Codes of the network.

use crate::wrong::code::{Class, Code, Place, Risk};

pub static NIC_FLAP: Code = Code {
    name: "NIC_FLAP",
    faults: &[10],
    class: Class::Notify,
    sentence: "{node}'s network card {link} went up and down {count} times in 5 min: cable, port or transceiver.",
    command: "evenkeel kubectl cordon {node}",
    place: Place::Anywhere,
    risk: Risk::Safe,
    time: "1 min",
    otherwise: "reseat or replace the cable, then the transceiver, then the card",
    decision: false,
    page: "A link that comes and goes hurts more than one that is down. Keep new pods away until it is quiet.",
};

pub static SWITCH_DOWN: Code = Code {
    name: "SWITCH_DOWN",
    faults: &[12],
    class: Class::Page,
    sentence: "{nodes} lost the network in the same moment: the switch, not the servers. Nothing is to be done on them.",
    command: "evenkeel kubectl get nodes -o wide",
    place: Place::Anywhere,
    risk: Risk::Safe,
    time: "2 min",
    otherwise: "look at the switch: power, ports, last change",
    decision: false,
    page: "Several machines that lose their links in one second share a cause outside of them. Restarting machines does not help.",
};

pub static NODE_PARTITIONED: Code = Code {
    name: "NODE_PARTITIONED",
    faults: &[13],
    class: Class::Page,
    sentence: "{node} is running but cut off: it reaches none of {others}. Its pods go on; changes are refused here.",
    command: "ip -brief address; ip route; ip -statistics link",
    place: Place::There,
    risk: Risk::Safe,
    time: "1 min",
    otherwise: "ask from another server: `evenkeel wrong` there tells what the others see",
    decision: false,
    page: "Seen from a machine that reaches nobody, it is more likely that this machine is cut off than that all others are gone. What the others do is only known there.",
};

pub static ONE_WAY_PARTITION: Code = Code {
    name: "ONE_WAY_PARTITION",
    faults: &[14],
    class: Class::Page,
    sentence: "{to} reaches {from}, but {from} does not reach {to}: looks like a firewall or switch rule.",
    command: "nft list ruleset | grep -n drop",
    place: Place::There,
    risk: Risk::Safe,
    time: "1 min",
    otherwise: "the same on {from}; then look for a rule on the switch between the two",
    decision: false,
    page: "Connections that open in one direction only are a rule, not a cable.",
};

pub static PATH_CUT: Code = Code {
    name: "PATH_CUT",
    faults: &[13, 14],
    class: Class::Page,
    sentence: "{from} and {to} do not reach each other, though {others} reaches both: looks like a firewall or switch rule between the two.",
    command: "nft list ruleset | grep -n drop",
    place: Place::There,
    risk: Risk::Safe,
    time: "1 min",
    otherwise: "the same on {to}; then look for a rule on the switch between the two",
    decision: false,
    page: "Two machines that a third one reaches are both alive. Packets that are lost in one direction close connections in both.",
};

pub static PACKET_LOSS: Code = Code {
    name: "PACKET_LOSS",
    faults: &[15],
    class: Class::Notify,
    sentence: "{share} of packets between {from} and {node} are lost; pages may load slowly.",
    command: "ip -statistics link",
    place: Place::There,
    risk: Risk::Safe,
    time: "1 min",
    otherwise: "replace cable or port; errors that grow on one side name it",
    decision: false,
    page: "More than half a percent of lost packets is felt by people and by the cluster's database.",
};

pub static MTU_MISMATCH: Code = Code {
    name: "MTU_MISMATCH",
    faults: &[16],
    class: Class::Notify,
    sentence: "Large packets from {from} to {node} disappear ({wanted} bytes wanted, {works} work): small requests work, big ones hang.",
    command: "ip -brief link",
    place: Place::There,
    risk: Risk::Safe,
    time: "1 min",
    otherwise: "set the same MTU on both cards and on the switch between them",
    decision: false,
    page: "A path that silently drops large packets looks like applications that hang at random.",
};

pub static NAMES_DOWN: Code = Code {
    name: "NAMES_DOWN",
    faults: &[17],
    class: Class::Page,
    sentence: "Names of the cluster are not answered on {node} ({why}); apps there do not find each other.",
    command: "systemctl restart evenkeel",
    place: Place::There,
    risk: Risk::Safe,
    time: "1 min",
    otherwise: "the log of the process is {log}",
    decision: false,
    page: "Names are a process of their own that the agent starts again when it ends. Restarting the agent touches no pod.",
};

pub static UPSTREAM_NAMES_DOWN: Code = Code {
    name: "UPSTREAM_NAMES_DOWN",
    faults: &[17],
    class: Class::Notify,
    sentence: "{node} finds no names outside the cluster: its upstream {upstream} is silent. Names inside work.",
    command: "cat {file}",
    place: Place::There,
    risk: Risk::Safe,
    time: "1 min",
    otherwise: "mend that server, or name another one there",
    decision: false,
    page: "What pods ask beyond the cluster goes to the resolvers of the machine.",
};

pub static CONNTRACK_FULL: Code = Code {
    name: "CONNTRACK_FULL",
    faults: &[19],
    class: Class::Page,
    sentence: "{node} is about to drop new connections: its table holds {count} of {max}.",
    command: "sysctl -w net.netfilter.nf_conntrack_max={double}",
    place: Place::There,
    risk: Risk::Safe,
    time: "1 min",
    otherwise: "find the pod that opens so many connections, and mend it",
    decision: false,
    page: "The kernel tracks every connection in a table of fixed size; when it is full, new ones are dropped at random.",
};

pub static VIP_DUPLICATE: Code = Code {
    name: "VIP_DUPLICATE",
    faults: &[20],
    class: Class::Page,
    sentence: "{nodes} claim the API address {address}; clients reach one of them by chance.",
    command: "ip address del {address} dev {link}",
    place: Place::There,
    risk: Risk::Disruptive,
    time: "1 min",
    otherwise: "restart evenkeel on the machine that does not hold the lease",
    decision: false,
    page: "One server holds the virtual address at a time. A second holder was cut off when it should have given it up.",
};

pub static RULES_LOST: Code = Code {
    name: "RULES_LOST",
    faults: &[22],
    class: Class::Page,
    sentence: "{node} lost network rules that pods and Services need ({what}).",
    command: "systemctl restart evenkeel",
    place: Place::There,
    risk: Risk::Safe,
    time: "1 min",
    otherwise: "find what removed them: a firewall's reload, or a package update",
    decision: false,
    page: "Routes and rules are made again from what the cluster declares when the program starts. Pods are not touched.",
};
