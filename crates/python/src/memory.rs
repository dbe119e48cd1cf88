//! Where the memory of Rust's own values comes from.
//!
//! Small values come from mimalloc, which keeps those of a size together. With hundreds of connections a server mostly waits for
//! memory, and in the system's allocator the small values of a connection lie between others, on pages of their own. Large ones
//! stay with the system, because mimalloc rounds sizes up, all in all by a tenth of what a connection takes. `docs/decisions.md`
//! has the figures.

use std::alloc::{GlobalAlloc, Layout, System};

use mimalloc::MiMalloc;

/// Larger values stay with the system.
const SMALL: usize = 1024;

/// An allocator for each of the two kinds.
pub(crate) struct Split;

fn is_small(layout: Layout) -> bool {
    layout.size() <= SMALL
}

#[expect(unsafe_code, reason = "an allocator cannot do without")]
// SAFETY: both allocators keep to what is asked of one, and a value's layout, which its owner gives back, says which of them it
// came from.
unsafe impl GlobalAlloc for Split {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's.
        unsafe { if is_small(layout) { MiMalloc.alloc(layout) } else { System.alloc(layout) } }
    }

    #[inline]
    unsafe fn dealloc(&self, value: *mut u8, layout: Layout) {
        // SAFETY: the caller's.
        unsafe { if is_small(layout) { MiMalloc.dealloc(value, layout) } else { System.dealloc(value, layout) } }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's.
        unsafe { if is_small(layout) { MiMalloc.alloc_zeroed(layout) } else { System.alloc_zeroed(layout) } }
    }

    #[inline]
    unsafe fn realloc(&self, value: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller's. Its promises about `size` make the new layout valid.
        unsafe {
            let new = Layout::from_size_align_unchecked(size, layout.align());
            match (is_small(layout), is_small(new)) {
                (true, true) => MiMalloc.realloc(value, layout, size),
                (false, false) => System.realloc(value, layout, size),
                _ => {
                    let moved = self.alloc(new);
                    if !moved.is_null() {
                        std::ptr::copy_nonoverlapping(value, moved, layout.size().min(size));
                        self.dealloc(value, layout);
                    }
                    moved
                }
            }
        }
    }
}
