use super::bind::Location;
use super::read::HostObject;
use crate::image::KernelImage;
pub struct Table {
    pub places: Vec<Location>,
    pub entries: Vec<u8>,
    pub header: Option<Vec<u8>>,
}
pub fn table(_image: &KernelImage, _host: &HostObject) -> Result<Option<Table>, String> {
    Ok(None)
}
