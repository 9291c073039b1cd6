// SPDX-License-Identifier: GPL-2.0

#include <linux/mm.h>
#include <linux/pgtable.h>

__rust_helper void rust_helper_release_fault_lock(struct vm_fault *vmf)
{
	release_fault_lock(vmf);
}

__rust_helper void rust_helper_vm_flags_set(struct vm_area_struct *vma,
					    vm_flags_t flags)
{
	vm_flags_set(vma, flags);
}

__rust_helper pgprot_t rust_helper_pgprot_writecombine(pgprot_t prot)
{
	return pgprot_writecombine(prot);
}
