import { createHmac, randomBytes, timingSafeEqual } from 'node:crypto'
import { OptionError } from '../internal/option-error.ts'
import { checkText } from '../internal/options.ts'

const ID = /^([\w-]{22})\.([\w-]{43})$/

/**
 * Makes session ids that show which key they were made for: a random part, and its HMAC-SHA-256 with the lineage of the key. Nothing
 * is stored, so there is nothing to fill or to lose, and every process with the secret can tell.
 */
export class SessionIds {
  private readonly secret: string | Uint8Array

  /** @param secret the same in every process that serves the same sessions; by default one of this process */
  constructor(secret: string | undefined) {
    if (secret !== undefined && checkText('sessionSecret', secret, 1_024).length < 32) {
      throw new OptionError('sessionSecret', 'be at least 32 characters long')
    }
    this.secret = secret ?? randomBytes(32)
  }

  create(lineageId: string): string {
    const random = randomBytes(16).toString('base64url')
    return `${random}.${this.sign(random, lineageId)}`
  }

  /** Whether an id was made for this key, or for one that it replaced. */
  belongs(id: string, lineageId: string): boolean {
    const [, random, signature] = ID.exec(id) ?? []
    if (random === undefined || signature === undefined) return false
    return timingSafeEqual(Buffer.from(signature), Buffer.from(this.sign(random, lineageId)))
  }

  private sign(random: string, lineageId: string): string {
    return createHmac('sha256', this.secret)
      .update(`latchkey.mcp.session\n${random}\n${lineageId}`)
      .digest('base64url')
  }
}
