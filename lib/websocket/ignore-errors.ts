import type { EventEmitter } from 'node:events'

/** Until another listener is there, an error of the socket would end the process: `node:http` takes its own away before the upgrade. */
export function ignoreErrors(socket: Pick<EventEmitter, 'on'>): void {
  socket.on('error', ignore)
}

function ignore(): void {}
