// SPDX-License-Identifier: GPL-2.0-only
/*
 * Mappings of a region, their page faults, and failed pages.
 */
#include <linux/file.h>
#include <linux/io.h>
#include <linux/mm.h>

#include "adaptor.h"

/* Position in the device's file at the start of the mapping. */
static u64 adaptor_position(const struct vm_area_struct *vma)
{
	return (u64)vma->vm_pgoff << PAGE_SHIFT;
}

/*
 * Returns 0 with memory_lock held for reading and the device ready, or VM_FAULT_*. Where a fault may
 * be tried again, the wait holds neither the lock of the mapping nor that of the process's memory
 * map; after the release of these locks the fault and the mapping may be gone, but the file, and so
 * the device, is not.
 */
static vm_fault_t adaptor_fault_ready(struct vm_fault *vmf, struct adaptor_device *dev)
{
	struct varia_wait wait = {};
	struct file *file = vmf->vma->vm_file;
	int ret = adaptor_lock_once(dev, &wait, true), how = VARIA_FAULT_WAIT_HELD;

	if (ret == VARIA_READY_SLEEP)
		how = varia_fault_wait(dev->state, &wait, vmf->flags & FAULT_FLAG_VMA_LOCK,
				       fault_flag_allow_retry_first(vmf->flags) &&
				       !(vmf->flags & FAULT_FLAG_RETRY_NOWAIT),
				       vmf->flags & FAULT_FLAG_TRIED);
	if (how == VARIA_FAULT_WAIT_RELEASED || how == VARIA_FAULT_WAIT_LATER) {
		get_file(file);
		release_fault_lock(vmf);
		if (how == VARIA_FAULT_WAIT_RELEASED && !adaptor_lock_ready(dev, &wait, true)) {
			varia_count(dev->state, VARIA_COUNT_CHECKED);
			up_read(&dev->core.memory_lock);
		}
		varia_count(dev->state, VARIA_COUNT_FAULT_RETRIED);
		fput(file);
		return VM_FAULT_RETRY;
	}
	if (ret == VARIA_READY_SLEEP && how == VARIA_FAULT_WAIT_HELD)
		ret = adaptor_lock_ready(dev, &wait, true);
	if (ret)
		varia_count(dev->state, VARIA_COUNT_FAULT_NOT_READY);
	return ret ? VM_FAULT_SIGBUS : 0;
}

static vm_fault_t adaptor_huge_fault(struct vm_fault *vmf, unsigned int order)
{
	struct vm_area_struct *vma = vmf->vma;
	struct adaptor_device *dev = vma->vm_private_data;
	s64 frame = varia_fault(dev->state, vmf->address, order, vma->vm_start, vma->vm_end,
				adaptor_position(vma));
	vm_fault_t ret = 0;

	if (frame == VARIA_FAULT_FAILED_PAGE)
		return VM_FAULT_HWPOISON;
	if (frame < 0)
		return frame == VARIA_FAULT_FALLBACK ? VM_FAULT_FALLBACK : VM_FAULT_SIGBUS;
	if (!adaptor_lock_if_ready(dev, true))
		ret = adaptor_fault_ready(vmf, dev);
	if (ret)
		return ret;
	ret = vfio_pci_vmf_insert_pfn(&dev->core, vmf, frame, order);
	varia_count(dev->state, ret & VM_FAULT_NOPAGE ? VARIA_COUNT_FAULT_SERVED :
							VARIA_COUNT_FAULT_NOT_INSERTED);
	up_read(&dev->core.memory_lock);
	return ret;
}

static vm_fault_t adaptor_fault(struct vm_fault *vmf)
{
	return adaptor_huge_fault(vmf, 0);
}

static const struct vm_operations_struct adaptor_vm_ops = {
	.fault = adaptor_fault,
#ifdef CONFIG_ARCH_SUPPORTS_HUGE_PFNMAP
	.huge_fault = adaptor_huge_fault,
#endif
};

/* True if a write to the mapping would want a copy. */
static bool adaptor_copies_on_write(const struct vm_area_struct *vma)
{
	return (vma->vm_flags & (VM_SHARED | VM_MAYWRITE)) == VM_MAYWRITE;
}

int adaptor_mmap(struct vfio_device *vdev, struct vm_area_struct *vma)
{
	struct adaptor_device *dev = adaptor_of(vdev);
	int how = varia_mmap(dev->state, adaptor_position(vma), vma->vm_end - vma->vm_start,
			     adaptor_copies_on_write(vma));

	if (how == VARIA_MMAP_BASE)
		return vfio_pci_core_mmap(vdev, vma);
	if (how < 0)
		return how;

	vm_flags_set(vma, VM_IO | VM_PFNMAP | VM_DONTEXPAND | VM_DONTDUMP |
			  (how & VARIA_MMAP_ALLOW_UNCACHED ? VM_ALLOW_ANY_UNCACHED : 0));
	if (how & VARIA_MMAP_WRITE_COMBINING)
		vma->vm_page_prot = pgprot_writecombine(vma->vm_page_prot);
	vma->vm_private_data = dev;
	vma->vm_ops = &adaptor_vm_ops;
	return 0;
}

/* Position of a failed page frame in a mapping. Atomic context. */
static int adaptor_locate(struct vm_area_struct *vma, unsigned long pfn, pgoff_t *pgoff)
{
	struct adaptor_device *dev = vma->vm_private_data;
	u64 bytes;
	int ret = -ENOENT;

	if (vma->vm_ops == &adaptor_vm_ops)
		ret = varia_locate(dev->state, pfn, adaptor_position(vma),
				   vma->vm_end - vma->vm_start, &bytes);
	if (ret)
		return ret;
	*pgoff = vma->vm_pgoff + (bytes >> PAGE_SHIFT);
	return 0;
}

/*
 * Claims the memory while the device is open, so that the kernel can't take it as RAM meanwhile.
 * Memory that is in use already fails the open.
 */
int adaptor_claim_memory(struct adaptor_device *dev)
{
	struct pci_dev *pdev = dev->core.pdev;
	u8 text[VARIA_TEXT_LEN] = "";
	struct varia_region region;
	int ret, i;

	for (i = 0; i < VARIA_REGIONS; i++) {
		if (!varia_region(dev->state, i, &region))
			continue;
		dev->memory[i].claim = request_mem_region(region.base, region.length, pci_name(pdev));
		if (!dev->memory[i].claim) {
			ret = varia_claimed(dev->state, i, text, sizeof(text));
			pci_err(pdev, "%s\n", text);
			return ret;
		}
		varia_count(dev->state, VARIA_COUNT_MEMORY_CLAIMED);
	}
	return 0;
}

/* Releases the claims, mappings and registrations that open and later accesses have made. */
void adaptor_drop_memory(struct adaptor_device *dev)
{
	struct adaptor_memory *memory;

	for (memory = dev->memory; memory < dev->memory + VARIA_REGIONS; memory++) {
		if (memory->space.mapping) {
			unregister_pfn_address_space(&memory->space);
			memory->space.mapping = NULL;
			varia_count(dev->state, VARIA_COUNT_PAGES_UNREGISTERED);
		}
		if (memory->address) {
			memunmap(memory->address);
			memory->address = NULL;
			varia_count(dev->state, VARIA_COUNT_MEMORY_UNMAPPED);
		}
		if (memory->claim) {
			release_mem_region(memory->claim->start, resource_size(memory->claim));
			memory->claim = NULL;
			varia_count(dev->state, VARIA_COUNT_MEMORY_RELEASED);
		}
	}
}

/* Registers the pages of each region for memory failure, if the kernel handles it. */
int adaptor_register_pages(struct adaptor_device *dev)
{
	struct varia_region region;
	int ret = 0, i;

	for (i = 0; i < VARIA_REGIONS && !ret; i++) {
		struct pfn_address_space *space = &dev->memory[i].space;

		if (!varia_region(dev->state, i, &region) || !region.frames)
			continue;
		space->node.start = region.first_frame;
		space->node.last = region.first_frame + region.frames - 1;
		space->mapping = dev->core.vdev.inode->i_mapping;
		space->pfn_to_vma_pgoff = adaptor_locate;
		ret = register_pfn_address_space(space);
		if (ret)
			space->mapping = NULL;
		else
			varia_count(dev->state, VARIA_COUNT_PAGES_REGISTERED);
	}
	return ret == -EOPNOTSUPP ? 0 : ret;
}
