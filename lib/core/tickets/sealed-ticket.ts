import { createCipheriv, createDecipheriv, createHash, hkdfSync, randomBytes } from 'node:crypto'

/** What a ticket stood for. */
export interface RedeemedTicket {
  /** The key itself. Verify it, and show it to nobody. */
  readonly key: string
  readonly keyId: string
  /** The version of the key when the ticket was issued: if the key has another one now, refuse the ticket. */
  readonly version: number
}

/** What a ticket stands for. */
export interface TicketContents extends RedeemedTicket {
  /** The only origin that may redeem the ticket; null means requests without one. */
  readonly origin: string | null
  /** When the ticket expires, in milliseconds since 1970. */
  readonly expiresAt: number
}

const IV_BYTES = 12
const TAG_BYTES = 16

/** 256 random bits. */
export function newTicket(): string {
  return randomBytes(32).toString('base64url')
}

/** Whether a text has the shape of a ticket. */
export function isTicket(text: string): boolean {
  return /^[A-Za-z0-9_-]{43}$/.test(text)
}

/** The name of a ticket in a store, which tells nothing of the ticket. */
export function ticketId(ticket: string): string {
  return createHash('sha256').update(ticket).digest('base64url')
}

/** Encrypts the contents (AES-256-GCM) under a key that is made of the ticket (HKDF, RFC 5869) and stored nowhere. */
export function sealTicket(ticket: string, contents: TicketContents): string {
  const iv = randomBytes(IV_BYTES)
  const cipher = createCipheriv('aes-256-gcm', sealingKey(ticket), iv)
  const sealed = [cipher.update(JSON.stringify(contents), 'utf8'), cipher.final()]
  return Buffer.concat([iv, cipher.getAuthTag(), ...sealed]).toString('base64url')
}

/** The contents; null if they were not sealed with this ticket. */
export function openTicket(ticket: string, sealed: string): TicketContents | null {
  const bytes = Buffer.from(sealed, 'base64url')
  if (bytes.length <= IV_BYTES + TAG_BYTES) return null
  const decipher = createDecipheriv('aes-256-gcm', sealingKey(ticket), bytes.subarray(0, IV_BYTES), {
    authTagLength: TAG_BYTES,
  })
  decipher.setAuthTag(bytes.subarray(IV_BYTES, IV_BYTES + TAG_BYTES))
  try {
    const text = [decipher.update(bytes.subarray(IV_BYTES + TAG_BYTES)), decipher.final()]
    return JSON.parse(Buffer.concat(text).toString('utf8'))
  } catch {
    return null
  }
}

function sealingKey(ticket: string): Buffer {
  return Buffer.from(hkdfSync('sha256', ticket, '', 'latchkey ticket 1', 32))
}
