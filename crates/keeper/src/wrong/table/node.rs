//! Codes of machines and of the programs that run them.

use crate::wrong::code::{Class, Code, Place, Risk};

pub static SERVER_STOPPED: Code = Code {
    name: "SERVER_STOPPED",
    faults: &[46],
    class: Class::Page,
    sentence: "Evenkeel does not run on {node}; its pods and their network go on.",
    command: "systemctl start evenkeel",
    place: Place::There,
    risk: Risk::Safe,
    time: "1 min",
    otherwise: "if it does not stay up: journalctl -u evenkeel",
    decision: false,
    page: "The process of this machine is not there. Nothing that runs depends on it; changes do.",
};

pub static API_DOWN: Code = Code {
    name: "API_DOWN",
    faults: &[46],
    class: Class::Page,
    sentence: "The API on {node} does not answer as it should ({why}); apps go on, changes fail there.",
    command: "systemctl restart evenkeel",
    place: Place::There,
    risk: Risk::Safe,
    time: "1 min",
    otherwise: "its log says why: journalctl -u evenkeel",
    decision: false,
    page: "The program runs, but its API is not ready. Restarting it touches no pod.",
};

pub static NODE_DOWN: Code = Code {
    name: "NODE_DOWN",
    faults: &[40],
    class: Class::Page,
    sentence: "{node} does not answer at all (last heard of {since}): off, or cut off. {effect} If power does not bring it back:",
    command: "evenkeel replace {node}",
    place: Place::Anywhere,
    risk: Risk::Disruptive,
    time: "5 min",
    otherwise: "without a machine to put in its place: `evenkeel node remove {node}`",
    decision: true,
    page: "Nobody gets an answer from any of its ports. Whether it is without power or without network cannot be told from afar: look at it, or at its management card.",
};

pub static AGENT_HUNG: Code = Code {
    name: "AGENT_HUNG",
    faults: &[46],
    class: Class::Page,
    sentence: "{node} is alive, but Evenkeel there is frozen (last heard of {since}); its pods go on and cannot be changed.",
    command: "systemctl kill --signal=KILL evenkeel",
    place: Place::There,
    risk: Risk::Safe,
    time: "1 min",
    otherwise: "its service starts it again; if it freezes again, reboot the machine",
    decision: false,
    page: "The machine's kernel takes connections, the program does not speak. Killing it touches no pod.",
};

pub static AGENT_DEAD: Code = Code {
    name: "AGENT_DEAD",
    faults: &[46],
    class: Class::Page,
    sentence: "{node} is alive, but Evenkeel does not run there (last heard of {since}); its pods go on and cannot be changed.",
    command: "systemctl start evenkeel",
    place: Place::There,
    risk: Risk::Safe,
    time: "1 min",
    otherwise: "if it does not stay up: journalctl -u evenkeel there",
    decision: false,
    page: "The machine's kernel answers that nobody listens. Nothing that runs there depends on the program.",
};

pub static NODE_NOT_READY: Code = Code {
    name: "NODE_NOT_READY",
    faults: &[46],
    class: Class::Page,
    sentence: "{node} takes no new pods: {why}.",
    command: "evenkeel kubectl describe node {node}",
    place: Place::Anywhere,
    risk: Risk::Safe,
    time: "1 min",
    otherwise: "the log of the program there: journalctl -u evenkeel",
    decision: false,
    page: "The node reports, and reports that it is not ready. The reason is its own words.",
};

pub static NODE_PRESSURE: Code = Code {
    name: "NODE_PRESSURE",
    faults: &[48, 49],
    class: Class::Notify,
    sentence: "{node} is short of something ({what}): it takes no new pods and may end some.",
    command: "evenkeel kubectl describe node {node}",
    place: Place::Anywhere,
    risk: Risk::Safe,
    time: "1 min",
    otherwise: "free some of it, or move pods away",
    decision: false,
    page: "Below a threshold of memory, disk or process ids a node protects itself.",
};

pub static RUNTIME_DOWN: Code = Code {
    name: "RUNTIME_DOWN",
    faults: &[46],
    class: Class::Page,
    sentence: "The container runtime of {node} does not answer ({why}); containers run on, none can be started.",
    command: "systemctl restart evenkeel",
    place: Place::There,
    risk: Risk::Safe,
    time: "1 min",
    otherwise: "the end of its log says why: tail -n 20 {log}",
    decision: false,
    page: "containerd is started again by itself when it ends. Where that does not come about its log says why; containers do not depend on it.",
};

pub static ADDRESS_CHANGED: Code = Code {
    name: "ADDRESS_CHANGED",
    faults: &[45],
    class: Class::Page,
    sentence: "{node} has no longer the address {address} under which the cluster knows it.",
    command: "systemctl restart evenkeel",
    place: Place::There,
    risk: Risk::Safe,
    time: "1 min",
    otherwise: "give it the old address back, or set --node-ip to the new one",
    decision: false,
    page: "Cards are renamed and addresses change with updates. A node is its keys, not its address: it registers again with the new one.",
};

pub static ALL_RESTARTED: Code = Code {
    name: "ALL_RESTARTED",
    faults: &[41],
    class: Class::Notify,
    sentence: "All servers restarted together at {when} (power cut?); {effect}",
    command: "evenkeel kubectl get pods -A --field-selector status.phase!=Running",
    place: Place::Anywhere,
    risk: Risk::Safe,
    time: "1 min",
    otherwise: "wait five minutes and ask again: apps start by themselves",
    decision: false,
    page: "Machines that all booted within minutes lost power together. What was acknowledged before is there.",
};

pub static NODE_IMPOSTOR: Code = Code {
    name: "NODE_IMPOSTOR",
    faults: &[54],
    class: Class::Notify,
    sentence: "A machine calling itself {node} is not the one that joined under this name; it was not admitted.",
    command: "evenkeel token list",
    place: Place::Anywhere,
    risk: Risk::Safe,
    time: "1 min",
    otherwise: "if the machine was replaced on purpose: `evenkeel node remove {node}`, then join the new one with a token",
    decision: true,
    page: "A node's name is bound to a key that it drew when it joined. Another machine under the same name is refused.",
};

pub static CPU_STARVED: Code = Code {
    name: "CPU_STARVED",
    faults: &[50],
    class: Class::Notify,
    sentence: "{node} is so busy that Evenkeel there came {millis} ms late; heartbeats may be missed.",
    command: "evenkeel kubectl get pods -A --field-selector spec.nodeName={node} -o wide",
    place: Place::Anywhere,
    risk: Risk::Safe,
    time: "1 min",
    otherwise: "set limits for what takes the processors, or move it",
    decision: false,
    page: "A timer of the program fired much later than it should have. Something takes all processors, or the machine's host does.",
};

pub static LOOP_FAILING: Code = Code {
    name: "LOOP_FAILING",
    faults: &[],
    class: Class::Notify,
    sentence: "A part of the control plane does not get on: {what}.",
    command: "evenkeel kubectl get --raw /readyz/{first}",
    place: Place::Anywhere,
    risk: Risk::Safe,
    time: "1 min",
    otherwise: "its log says more: journalctl -u evenkeel",
    decision: false,
    page: "Loops try again by themselves. One that keeps failing has met an object or a state that it cannot handle.",
};
