import type { User as Person } from './users.ts'

// What `req.user` is, once for the whole application. See docs/types.md.
declare global {
  namespace Latchkey {
    interface Register {
      user: Person
    }
  }
  namespace Express {
    interface User extends Person {}
  }
}
