//! The `varia` command as users and VMMs call it: results, refusals, sockets, clients.

mod backing;
mod cards;
mod cases;
mod chips;
mod clients;
mod cluster;
mod doctor;
mod explain;
mod faults;
mod fleet;
mod forms;
mod help;
mod hostile;
mod hosts;
mod inspect;
mod layouts;
mod manifests;
mod plan;
mod platforms;
mod process;
mod reconnect;
mod run;
mod sizes;
mod socket;
mod stacks;
mod wordings;
