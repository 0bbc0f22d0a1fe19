//! Files that are good but for a few bytes: what reads them is met deep inside.

/// Bytes of an input for one change: where (u32), how many bytes (1, 2, 4, 8), what (u64).
const CHANGE: usize = 13;

/// One of `files`, chosen by the first byte, with the changes that the rest says. The last 7 choices are the rest itself.
pub fn damaged(files: &[Vec<u8>], data: &[u8]) -> Vec<u8> {
    let Some((first, rest)) = data.split_first() else { return Vec::new() };
    if *first >= 249 || files.is_empty() {
        return rest.to_vec();
    }
    let mut bytes = files[usize::from(*first) % files.len()].clone();
    for change in rest.chunks_exact(CHANGE) {
        let at =
            u32::from_le_bytes([change[0], change[1], change[2], change[3]]) as usize % bytes.len().max(1);
        let count = 1 << (change[4] % 4);
        if let Some(place) = bytes.get_mut(at..at + count) {
            place.copy_from_slice(&change[5..5 + count]);
        } else {
            // The end is cut off where a change does not fit.
            bytes.truncate(at);
        }
    }
    bytes
}
