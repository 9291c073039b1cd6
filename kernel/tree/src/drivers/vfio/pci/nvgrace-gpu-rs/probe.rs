// SPDX-License-Identifier: GPL-2.0-only

//! From a PCI function to the state of its device.

use kernel::{
    device,
    pci,
    prelude::*,
    str::CString,
    sync::Arc,
    vfio::pci::{
        is_system_ram,
        last_physical_address,
        ProbeBar,
        Unlocked, //
    }, //
};
use varia_spec::Errno;
use varia_variant::{
    Answer,
    Answers,
    Before,
    Bytes,
    Environment,
    HostPhys,
    MemoryLayout,
    Outcome,
    Probe,
    Question,
    Ready,
    Refusal,
    Register,
    Sample,
    Variant, //
};

use crate::{
    module_parameters,
    ready,
    show::Told,
    state::{
        to_errno,
        Data,
        State, //
    },
    NAME, //
};

type Pci<'a> = pci::Device<device::Core<'a>>;

/// Builds the state of a device that is served, with its memory or without it.
pub(crate) fn probe<'a, 'b>(
    pdev: &'a Pci<'b>,
    unlocked: Unlocked,
) -> impl PinInit<Data, Error> + use<'a, 'b> {
    pin_init::pin_init_scope(move || Ok(Data::new(build(pdev, unlocked)?)))
}

fn build(pdev: &Pci<'_>, unlocked: Unlocked) -> Result<Arc<State>> {
    let page = State::page_shift()?;
    let answers = Answers::collect(varia_variants::NvgraceGpu::QUESTIONS, |question| {
        answer(pdev, question)
    });
    let variant = varia_variants::NvgraceGpu::probe(
        &answers,
        Environment {
            page,
            honour_memory_enable: *module_parameters::honour_memory_enable.value() != 0,
            strict: *module_parameters::strict.value() != 0,
            layout: MemoryLayout::Bar,
        },
    );
    let state = Arc::new(State::new(variant, page), GFP_KERNEL)?;
    match outcome(&state, wait(pdev, &state, unlocked)) {
        Outcome::Serve => Ok(state),
        Outcome::Decline(reason) => {
            dev_warn!(pdev, "{}\n", Told(reason));
            Ok(state)
        }
        Outcome::Fail(refusal) => {
            dev_err!(pdev, "not served: {}\n", Told(refusal));
            Err(crate::state::to_error(refusal.errno()))
        }
    }
}

/// Answer to a question of the variant.
fn answer(pdev: &Pci<'_>, question: Question) -> Answer {
    let dvsec = |vendor, id| pdev.find_dvsec(vendor, id).ok_or(Errno::ENOENT);
    match question {
        Question::Property(name) => property(pdev, name).map_err(to_errno),
        Question::DvsecOffset { vendor, id } => dvsec(vendor, id).map(u64::from),
        Question::DvsecWord { vendor, id, offset } => {
            let at = dvsec(vendor, id)?
                .checked_add(offset)
                .ok_or(Errno::EINVAL)?;
            pdev.read_config_word(at).map(u64::from).map_err(to_errno)
        }
        Question::BarSize(bar) => match pdev.resource_len(bar.get().into()) {
            Ok(0) | Err(_) => Err(Errno::ENOENT),
            Ok(size) => Ok(size),
        },
        // There is no access to the function's owner, and none to the platform.
        _ => Err(Errno::EOPNOTSUPP),
    }
}

/// A property of the firmware.
fn property(pdev: &Pci<'_>, name: &str) -> Result<u64> {
    let name = CString::try_from_fmt(fmt!("{}", name))?;
    let node = AsRef::<device::Device<device::Core<'_>>>::as_ref(pdev).fwnode();
    let node = node.ok_or(EINVAL)?;
    // Whatever is wrong with the property, it can not be read: the error has no other form here.
    node.property_read::<u64>(&name).optional().ok_or(EINVAL)
}

/// Waits for a device that has no users yet.
fn wait(pdev: &Pci<'_>, state: &State, mut unlocked: Unlocked) -> Result {
    let sample = |state: &State| Sample {
        now: state.now(),
        memory_enabled: true,
    };
    let first = state
        .variant
        .ready_before(&mut Default::default(), sample(state));
    let bar0 = |register: &Option<Register>| matches!(register, Some(Register::Bar0(_)));
    let bar = match first {
        Before::Poll { registers, .. } if registers.iter().any(bar0) => {
            Some(ProbeBar::new(pdev, 0, NAME)?)
        }
        _ => None,
    };
    let mut wait = ready::Wait::default();
    loop {
        let killed = unlocked.is_killed();
        let read = |register| match (register, &bar) {
            (Register::Bar0(offset), Some(bar)) => bar.read32(offset),
            (Register::Bar0(_), None) => u32::MAX,
            (Register::Config(offset), _) => pdev.read_config_dword(offset).unwrap_or(u32::MAX),
        };
        match ready::poll(state, &mut wait, sample(state), killed, read)? {
            kernel::vfio::pci::Check::Ready => return Ok(()),
            kernel::vfio::pci::Check::Sleep(milliseconds) => unlocked.sleep(milliseconds),
        }
    }
}

/// Outcome after the wait.
fn outcome(state: &State, waited: Result) -> Outcome {
    let refused = match (waited, state.variant.outcome()) {
        (Err(error), _) => Some(Refusal::NotReady {
            errno: to_errno(error),
        }),
        (Ok(()), Outcome::Serve) => out_of_reach(state).or_else(|| in_ram(state)),
        (Ok(()), _) => None,
    };
    refused.map_or_else(|| state.variant.outcome(), Outcome::Fail)
}

/// The first region whose memory ends beyond the last address that the CPU can reach.
fn out_of_reach(state: &State) -> Option<Refusal> {
    let last = last_physical_address();
    state.memories().find_map(|(_, region)| {
        let (base, length) = (region.base(), region.length());
        let end = base.0.saturating_add(length.saturating_sub(1));
        (end > last).then_some(Refusal::OutOfReach {
            base,
            length: Bytes(length),
            last: HostPhys(last),
        })
    })
}

/// The first region whose memory the kernel uses as RAM.
fn in_ram(state: &State) -> Option<Refusal> {
    state.memories().find_map(|(_, region)| {
        let (base, length) = (region.base(), region.length());
        is_system_ram(base.0, length).then_some(Refusal::SystemRam {
            base,
            length: Bytes(length),
        })
    })
}
