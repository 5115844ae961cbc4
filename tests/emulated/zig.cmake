# The clang of zig as a cross compiler: it carries the C and C++ libraries of other systems.
# -DSYSTEM=aarch64-macos or x86_64-windows-gnu, -DZIG=the program.
list(APPEND CMAKE_TRY_COMPILE_PLATFORM_VARIABLES SYSTEM ZIG)
if(SYSTEM MATCHES "macos")
  set(CMAKE_SYSTEM_NAME Darwin)
  set(CMAKE_MODULE_LINKER_FLAGS_INIT -dynamiclib) # its linker passes over -bundle
else()
  set(CMAKE_SYSTEM_NAME Windows)
endif()
string(REGEX MATCH "^[^-]+" CMAKE_SYSTEM_PROCESSOR ${SYSTEM})
set(CMAKE_CXX_COMPILER ${ZIG} c++ -target ${SYSTEM})
