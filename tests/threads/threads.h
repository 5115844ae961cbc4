// Threads of the driver's own in place of torch's pool, which ThreadSanitizer cannot look into.
#pragma once

namespace threads {

// What thread_count() says from now on; parallel() starts that many threads, and ends them.
void use(int count);

}  // namespace threads
