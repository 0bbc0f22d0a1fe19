//! The thread of a vCPU.

use crate::{End, VmmError, shared::Shared};
use colinux_abi::ioctl::{RunExit, exit};
use colinux_driver::{Run, Vcpu};
use std::ops::ControlFlow;

/// Device and queue with answers of which the guest is to hear.
type Answers = (u64, u64);

/// Runs vCPU `index` until the VM ends.
pub(crate) fn run(index: usize, shared: &Shared) {
    let end = shared.vcpus.get(index).and_then(|vcpu| run_to_end(vcpu, shared));
    shared.thread_ends(end);
}

/// Returns how the VM ended, if this vCPU ended it.
fn run_to_end(vcpu: &Vcpu, shared: &Shared) -> Option<Result<End, VmmError>> {
    let mut answers: Option<Answers> = None;
    loop {
        let run = match answers.take() {
            Some((device, queue)) => vcpu.run_with_answers(device, queue),
            None => vcpu.run(),
        };
        let step = match run {
            Ok(Run::Interrupted) => Ok(ControlFlow::Continue(None)),
            Ok(Run::Exit(exit)) => act(&exit, shared),
            Err(error) => Err(error.into()),
        };
        match step {
            Ok(ControlFlow::Continue(next)) => answers = next,
            Ok(ControlFlow::Break(end)) => return end.map(Ok),
            Err(error) => return Some(Err(error)),
        }
    }
}

fn act(run: &RunExit, shared: &Shared) -> Result<ControlFlow<Option<End>, Option<Answers>>, VmmError> {
    match run.reason {
        exit::CONSOLE => shared.output.pump()?,
        exit::NOTIFY if shared.devices.notified(run.arg0, run.arg1) => {
            return Ok(ControlFlow::Continue(Some((run.arg0, run.arg1))));
        }
        exit::NOTIFY => {}
        exit::DEVICE_STATUS => shared.devices.status_written(run.arg0)?,
        exit::CONFIG_WRITTEN => shared.devices.config_written(run.arg0),
        exit::SHUTDOWN => return Ok(ControlFlow::Break(Some(End::of_shutdown(run.arg0)))),
        exit::FAILED => {
            return Ok(ControlFlow::Break(Some(End::Failed { reason: run.arg0, detail: run.arg1 })));
        }
        exit::PAGING => {
            return Ok(ControlFlow::Break(Some(End::Paging { cr3: run.arg0, cr4: run.arg1 })));
        }
        exit::STOPPED => return Ok(ControlFlow::Break(None)),
        other => return Err(VmmError::UnknownExit(other)),
    }
    Ok(ControlFlow::Continue(None))
}
