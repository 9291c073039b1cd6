#!/bin/sh
# First process of a machine of type s390x: gives each PCI function to vfio-pci, prints facts of the
# function and its device's info, and switches the machine off.
PATH=/bin
busybox mount -t proc proc /proc
busybox mount -t sysfs sysfs /sys
busybox mount -t devtmpfs devtmpfs /dev
for module in irqbypass vfio vfio_iommu_type1 vfio-pci-core vfio-pci; do
	busybox insmod /$module.ko
done
cd /sys/bus/pci/devices
for function in *; do
	echo vfio-pci > $function/driver_override
	[ -e $function/driver ] && echo $function > $function/driver/unbind
	echo $function > /sys/bus/pci/drivers_probe
	group=$(busybox basename $(busybox readlink $function/iommu_group))
	for fact in function_handle pchid vfn pft pfgid; do
		echo "zdev: $function $fact $(busybox cat $function/$fact)"
	done
	echo "zdev: $function info $(perl /zdev.pl $function $group)"
done
busybox poweroff -f
