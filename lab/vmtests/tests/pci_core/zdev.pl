# Usage: zdev.pl FUNCTION GROUP. Opens a function through VFIO with a type1 container and prints what
# VFIO_DEVICE_GET_INFO writes, in hexadecimal.
my ($function, $group) = @ARGV;

# VFIO's requests: _IO(';', 100 + n)
sub request { return ord(';') << 8 | 100 + shift }

sub asked {
    my ($file, $n, undef) = @_;
    my $result = ioctl($file, request($n), $_[2]);
    die "request $n: $!\n" unless defined $result;
    return $result + 0;
}

open(my $container, '+<', '/dev/vfio/vfio') or die "container: $!\n";
open(my $members, '+<', "/dev/vfio/$group") or die "group $group: $!\n";
my $descriptor = pack('i', fileno $container);
asked($members, 4, $descriptor);
asked($container, 2, 3);
my $name = "$function\0";
open(my $device, '+<&=', asked($members, 6, $name)) or die "device: $!\n";

# struct vfio_device_info without capabilities, then with the room that the kernel asks for
my $info = pack('L6', 24);
asked($device, 7, $info);
my $argsz = unpack('L', $info);
$info = pack('L', $argsz) . "\0" x ($argsz - 4);
asked($device, 7, $info);
print unpack('H*', substr($info, 0, $argsz)), "\n";
