//! Codes of what people run.

use crate::wrong::code::{Class, Code, Place, Risk};

pub static VOLUME_STUCK: Code = Code {
    name: "VOLUME_STUCK",
    faults: &[7],
    class: Class::Page,
    sentence: "{about} cannot start: its volume {volume} lies on {node}, which is not there; the data is only on that machine.",
    command: "evenkeel kubectl describe pv {volume}",
    place: Place::Anywhere,
    risk: Risk::Safe,
    time: "1 min",
    otherwise: "bring {node} back; or give the data up, delete the claim, and restore the app from its own backup",
    decision: true,
    page: "A local volume is bound to its machine. Nothing may choose between waiting and restoring but a person who knows the app.",
};

pub static DRAIN_BLOCKED: Code = Code {
    name: "DRAIN_BLOCKED",
    faults: &[55],
    class: Class::Notify,
    sentence: "{node} cannot be emptied: {budget} allows no pod to stop, and {about} still runs there.",
    command: "evenkeel kubectl uncordon {node}",
    place: Place::Anywhere,
    risk: Risk::Safe,
    time: "1 min",
    otherwise: "start one more copy elsewhere, then drain again; or set the budget lower",
    decision: true,
    page: "A disruption budget that allows nothing makes a drain wait for ever. Uncordon until it is settled, so that no cordon is forgotten.",
};

pub static STUCK_FINALIZER: Code = Code {
    name: "STUCK_FINALIZER",
    faults: &[56],
    class: Class::Notify,
    sentence: "{resource} will not go away since {age}: it waits for {waits}.",
    command: "evenkeel kubectl get {resource} -o yaml",
    place: Place::Anywhere,
    risk: Risk::Safe,
    time: "1 min",
    otherwise: "start what owns the finalizer again; only if it is gone for good, remove the finalizer from the object",
    decision: true,
    page: "A finalizer is a promise that somebody cleans up first. Removing it skips the clean-up.",
};

pub static WEBHOOK_DEAD: Code = Code {
    name: "WEBHOOK_DEAD",
    faults: &[57],
    class: Class::Page,
    sentence: "{resource} must allow changes, but its service {about} has no pod that answers: what it guards may be refused; apps run.",
    command: "evenkeel kubectl get pods,endpointslices -n {namespace}",
    place: Place::Anywhere,
    risk: Risk::Safe,
    time: "1 min",
    otherwise: "bring its pods back; or delete the configuration: `evenkeel kubectl delete {resource}`",
    decision: false,
    page: "A webhook that fails closed without a backend refuses everything it guards, its own pods among it.",
};

pub static REGISTRY_DOWN: Code = Code {
    name: "REGISTRY_DOWN",
    faults: &[58],
    class: Class::Notify,
    sentence: "Images of {host} cannot be pulled ({why}); what runs goes on, {pods} cannot start.",
    command: "evenkeel images pull {image}",
    place: Place::There,
    risk: Risk::Safe,
    time: "1 min",
    otherwise: "if the registry is down, wait or import a tarball: `evenkeel images import FILE`",
    decision: false,
    page: "The registry cannot be reached, or does not have the image, or refuses the login. The reason tells which.",
};

pub static CRASH_AFTER_CHANGE: Code = Code {
    name: "CRASH_AFTER_CHANGE",
    faults: &[60],
    class: Class::Notify,
    sentence: "{about} crashes since its change {changed}{who}; the version before is one command away.",
    command: "evenkeel kubectl rollout undo {owner} -n {namespace}",
    place: Place::Anywhere,
    risk: Risk::Safe,
    time: "1 min",
    otherwise: "the last words of the container: `evenkeel kubectl logs -n {namespace} {owner} --previous`",
    decision: false,
    page: "Restarts began after a change of the workload's template. Its previous template is kept.",
};

pub static CRASH_LOOP: Code = Code {
    name: "CRASH_LOOP",
    faults: &[60],
    class: Class::Notify,
    sentence: "{about} keeps crashing ({restarts} restarts); nothing of it was changed lately.",
    command: "evenkeel kubectl logs -n {namespace} {owner} --previous",
    place: Place::Anywhere,
    risk: Risk::Safe,
    time: "1 min",
    otherwise: "what it needs may be gone: `evenkeel kubectl describe {owner} -n {namespace}`",
    decision: false,
    page: "A container that ends again and again is started with growing pauses. Its own log says why it ends.",
};

pub static POD_NOT_READY: Code = Code {
    name: "POD_NOT_READY",
    faults: &[],
    class: Class::Notify,
    sentence: "{about} is not ready since {age}: {why}.",
    command: "evenkeel kubectl describe pod -n {namespace} {pod}",
    place: Place::Anywhere,
    risk: Risk::Safe,
    time: "1 min",
    otherwise: "its log: `evenkeel kubectl logs -n {namespace} {pod}`",
    decision: false,
    page: "A pod that is not ready gets no traffic. Its events and its log say what it waits for.",
};
