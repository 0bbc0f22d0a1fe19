//! Links the object at its place in the window.

fn main() {
    println!("cargo:rerun-if-changed=object.ld");
    // The linker runs in the workspace's folder. A whole path would stay in the target folder when a checkout is moved.
    println!("cargo:rustc-link-arg=-Tobject.ld");
    println!("cargo:rustc-link-arg=--gc-sections");
    println!("cargo:rustc-link-arg=--no-pie");
}
