package org.example.detector

import android.graphics.Bitmap
import androidx.test.ext.junit.runners.AndroidJUnit4
import androidx.test.platform.app.InstrumentationRegistry
import com.google.mediapipe.framework.image.BitmapImageBuilder
import java.security.MessageDigest
import org.junit.Assert.assertEquals
import org.junit.Test
import org.junit.runner.RunWith

/** Run on a phone: the model in the app is the one that was registered, opens, and looks at a picture. */
@RunWith(AndroidJUnit4::class)
class SelfTest {
    private val context = InstrumentationRegistry.getInstrumentation().targetContext

    private fun asset(name: String) = context.assets.open(name).use { it.readBytes() }

    @Test
    fun theModelIsTheOneThatWasRegistered() {
        val name = context.getString(R.string.model)
        val digest = MessageDigest.getInstance("SHA-256").digest(asset(name))
        val lines = String(asset("SHA256SUMS")).lines()
        val listed = lines.first { it.substringAfter("  ").substringAfterLast("/") == name }.substringBefore(" ")
        assertEquals(listed, digest.joinToString("") { "%02x".format(it) })
    }

    @Test
    fun itOpensAndLooksAtAPicture() {
        val blank = Bitmap.createBitmap(320, 240, Bitmap.Config.ARGB_8888)
        openDetector(context).use { it.detect(BitmapImageBuilder(blank).build()) }
    }
}
