//! Links the object at its place in the window.

fn main() {
    let folder = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
    println!("cargo:rerun-if-changed=object.ld");
    println!("cargo:rustc-link-arg=-T{folder}/object.ld");
    println!("cargo:rustc-link-arg=--gc-sections");
    println!("cargo:rustc-link-arg=--no-pie");
}
