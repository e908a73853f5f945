package mmio

// Registers, virtio 1.2 §4.2.2.
const (
	regMagic             = 0x000 // R
	regVersion           = 0x004 // R
	regDeviceID          = 0x008 // R
	regVendorID          = 0x00c // R
	regDeviceFeatures    = 0x010 // R
	regDeviceFeaturesSel = 0x014 // W
	regDriverFeatures    = 0x020 // W
	regDriverFeaturesSel = 0x024 // W
	regQueueSel          = 0x030 // W
	regQueueNumMax       = 0x034 // R
	regQueueNum          = 0x038 // W
	regQueueReady        = 0x044 // RW
	regQueueNotify       = 0x050 // W
	regInterruptStatus   = 0x060 // R
	regInterruptACK      = 0x064 // W
	regStatus            = 0x070 // RW
	regQueueDescLow      = 0x080 // W
	regQueueDescHigh     = 0x084 // W
	regQueueDriverLow    = 0x090 // W
	regQueueDriverHigh   = 0x094 // W
	regQueueDeviceLow    = 0x0a0 // W
	regQueueDeviceHigh   = 0x0a4 // W
	regSHMLenLow         = 0x0b0 // R
	regSHMLenHigh        = 0x0b4 // R
	regSHMBaseLow        = 0x0b8 // R
	regSHMBaseHigh       = 0x0bc // R
	regConfigGeneration  = 0x0fc // R
	regConfig            = 0x100 // RW
)

const (
	magic    = 0x74726976 // "virt", virtio 1.2 §4.2.2
	version  = 2          // virtio 1.2 §4.2.2: not legacy
	vendorID = 0x6463756c // "lucd"; any value is allowed

	// NotifyOffset is where the VMM installs the ioeventfds.
	NotifyOffset = regQueueNotify
	// WindowSize is the size of the register window, configuration included.
	WindowSize = 0x200
)

// Device status bits, virtio 1.2 §2.1.
const (
	statusAcknowledge = 1
	statusDriver      = 2
	statusDriverOK    = 4
	statusFeaturesOK  = 8
	statusNeedsReset  = 64
	statusFailed      = 128
)

// Bits of InterruptStatus, virtio 1.2 §4.2.2.
const (
	intUsed   = 1
	intConfig = 2
)
