// SPDX-License-Identifier: GPL-2.0-only
/*
 * Imports a dma-buf, for tests, as a driver of another device would. A write of
 * "FD SEGMENT:BUS:DEVICE.FUNCTION" to the parameter "import" maps the writer's dma-buf for that
 * function, and unmaps it; a read gives its ranges, "ADDRESS LENGTH" in hexadecimal on a line each.
 */
#include <linux/dma-buf.h>
#include <linux/dma-resv.h>
#include <linux/module.h>
#include <linux/pci.h>
#include <linux/scatterlist.h>

static char imported[PAGE_SIZE];

/* Nothing is mapped while the lock is not held. */
static void importer_invalidate(struct dma_buf_attachment *attachment)
{
}

static const struct dma_buf_attach_ops importer_ops = {
	.allow_peer2peer = true,
	.invalidate_mappings = importer_invalidate,
};

static int importer_map(struct dma_buf *dmabuf, struct dma_buf_attachment *attachment)
{
	struct scatterlist *range;
	struct sg_table *table;
	int i, used = 0;

	dma_resv_lock(dmabuf->resv, NULL);
	table = dma_buf_map_attachment(attachment, DMA_BIDIRECTIONAL);
	if (!IS_ERR(table)) {
		for_each_sgtable_dma_sg(table, range, i)
			used += scnprintf(imported + used, sizeof(imported) - used, "%llx %x\n",
					  (u64)sg_dma_address(range), sg_dma_len(range));
		dma_buf_unmap_attachment(attachment, table, DMA_BIDIRECTIONAL);
	}
	dma_resv_unlock(dmabuf->resv);
	return PTR_ERR_OR_ZERO(table);
}

static int importer_set(const char *text, const struct kernel_param *param)
{
	unsigned int segment, bus, device, function;
	struct dma_buf_attachment *attachment;
	struct dma_buf *dmabuf;
	struct pci_dev *pdev;
	int fd, ret = -ENODEV;

	imported[0] = 0;
	if (sscanf(text, "%d %x:%x:%x.%x", &fd, &segment, &bus, &device, &function) != 5)
		return -EINVAL;
	dmabuf = dma_buf_get(fd);
	if (IS_ERR(dmabuf))
		return PTR_ERR(dmabuf);
	pdev = pci_get_domain_bus_and_slot(segment, bus, PCI_DEVFN(device, function));
	if (pdev) {
		attachment = dma_buf_dynamic_attach(dmabuf, &pdev->dev, &importer_ops, NULL);
		ret = PTR_ERR_OR_ZERO(attachment);
		if (!ret) {
			ret = importer_map(dmabuf, attachment);
			dma_buf_detach(dmabuf, attachment);
		}
	}
	pci_dev_put(pdev);
	dma_buf_put(dmabuf);
	return ret;
}

static int importer_get(char *text, const struct kernel_param *param)
{
	return scnprintf(text, PAGE_SIZE, "%s", imported);
}

static const struct kernel_param_ops importer_param_ops = {
	.set = importer_set,
	.get = importer_get,
};
module_param_cb(import, &importer_param_ops, NULL, 0600);
MODULE_PARM_DESC(import, "A descriptor of a dma-buf and the PCI function to map it for");

MODULE_IMPORT_NS("DMA_BUF");
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Importing a dma-buf, for tests");
