//! A folder of the host: virtiofs (virtio 1.2, section 5.11), which is FUSE over virtqueues (Linux, include/uapi/linux/fuse.h).

use super::VhostUserModel;
use crate::{BadRequest, Buffers, QueueHandler};
use rustix::io::Errno;

/// Virtio device type (virtio 1.2, section 5.11.1).
const VIRTIO_ID_FS: u32 = 26;
/// The queue for what must not wait, and one for the rest.
const QUEUE_SIZES: [u16; 2] = [128, 1024];
/// Bytes for the tag in the configuration space.
const TAG_SIZE: usize = 36;
/// Bytes of `struct fuse_in_header`, and where in it the request's number is.
const IN_HEADER: usize = 40;
const IN_UNIQUE: usize = 8;
/// Bytes of `struct fuse_out_header`: length, negative errno, the request's number.
const OUT_HEADER: usize = 16;

impl VhostUserModel {
    /// A folder that the guest mounts as `tag`. When its backend is gone, each request is answered with ENOTCONN, so that nothing in the guest hangs.
    pub fn folder(tag: &str) -> Self {
        let mut config = vec![0; TAG_SIZE];
        config.iter_mut().zip(tag.bytes()).for_each(|(to, from)| *to = from);
        let request_queues = QUEUE_SIZES.len() as u32 - 1;
        config.extend(request_queues.to_le_bytes());
        let orphan = || QUEUE_SIZES.iter().map(|_| Box::new(Disconnected) as Box<dyn QueueHandler>).collect();
        Self {
            id: VIRTIO_ID_FS,
            features: 0,
            queue_sizes: QUEUE_SIZES.to_vec(),
            config,
            orphan: Some(orphan),
        }
    }
}

/// Refuses everything.
struct Disconnected;

impl QueueHandler for Disconnected {
    fn handle(&mut self, request: Buffers<'_>) -> Result<u32, BadRequest> {
        // FORGET and its like want no answer.
        if request.writable.is_empty() {
            return Ok(0);
        }
        let mut header = [0; IN_HEADER];
        if request.readable.read(&mut header) < IN_HEADER {
            return Err(BadRequest("a FUSE request is too short"));
        }
        let mut answer = [0; OUT_HEADER];
        answer[..4].copy_from_slice(&(OUT_HEADER as u32).to_le_bytes());
        answer[4..8].copy_from_slice(&(-Errno::NOTCONN.raw_os_error()).to_le_bytes());
        answer[8..].copy_from_slice(&header[IN_UNIQUE..IN_UNIQUE + 8]);
        Ok(request.writable.write(&answer) as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guest_reads_the_tag_and_the_number_of_queues() {
        let config = VhostUserModel::folder("cofs0").config;
        assert_eq!(config.len(), 40);
        assert_eq!(config[..6], *b"cofs0\0");
        assert_eq!(config[36..], [1, 0, 0, 0]);
        assert_eq!(VhostUserModel::folder(&"x".repeat(99)).config.len(), 40);
    }
}
