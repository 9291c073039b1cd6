// SPDX-License-Identifier: GPL-2.0-only
/* Check that the kernel's headers are complete: every probe includes these headers, and no more. */
#include "probe.h"
